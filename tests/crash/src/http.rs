//! A small HTTP server on a free port of the loopback interface, in a thread of its own.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Response, StatusCode, server::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::runtime::Builder;
use tokio::task::spawn_blocking;

/// A request, read to its end.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// The header's bytes as text: `workerd` sends JSON in headers, in plain UTF-8.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
    }
}

/// What a service says to a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Response {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// Closes the connection.
    Dropped,
}

impl Answer {
    pub(crate) fn json(body: &serde_json::Value) -> Self {
        Self::Response {
            status: 200,
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.to_string().into_bytes(),
        }
    }
}

/// A running server; it stops with the process. Requests are answered at the same time, each in a thread of its own,
/// and a request is worked on to its end even when whoever sent it has died.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    under_way: Arc<AtomicUsize>,
}

impl Server {
    /// Serves every request by `answer`.
    pub(crate) fn start(answer: impl Fn(Request) -> Answer + Send + Sync + 'static) -> Result<Self> {
        let listener =
            TcpListener::bind(("127.0.0.1", 0)).context("no free port on the loopback interface")?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let under_way = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&under_way);
        let answer = Arc::new(move |request| {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = answer(request);
            counted.fetch_sub(1, Ordering::SeqCst);
            answer
        });
        thread::Builder::new().name(format!("server {address}")).spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                while let Ok((stream, _)) = listener.accept().await {
                    let answer = Arc::clone(&answer);
                    let service = service_fn(move |request| serve(Arc::clone(&answer), request));
                    // OK to let go: a connection that breaks is what the tests are about.
                    drop(tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service)));
                }
            });
        })?;
        Ok(Self { address, under_way })
    }

    /// Whether a request is being worked on, be its sender alive or dead.
    pub(crate) fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) > 0
    }
}

async fn serve<A>(answer: Arc<A>, request: hyper::Request<Incoming>) -> Result<Response<Full<Bytes>>>
where
    A: Fn(Request) -> Answer + Send + Sync + 'static,
{
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let request = Request {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    // Blocking work in its own thread: it goes on when the connection, and with it this future, is gone.
    match spawn_blocking(move || answer(request)).await? {
        Answer::Dropped => bail!("dropped by the test"),
        Answer::Response { status, headers, body } => respond(status, headers, body),
    }
}

fn respond(
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
) -> Result<Response<Full<Bytes>>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status)?;
    for (name, value) in headers {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(&value)?);
    }
    Ok(response)
}
