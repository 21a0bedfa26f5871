use std::pin::pin;

use futures::future::{Either, select};
use ledger::ProducerLedger;
use protocol::limits::{REQUEST_BYTES_MAX, REQUEST_KEYS_MAX};
use sha2::{Digest, Sha256};

use crate::auth::Role;
use crate::fields::text;
use crate::hex::to_hex;
use crate::host::Host;
use crate::http::{Body, BodyError, Request};
use crate::intake::{Intake, Place, Taken, too_many};
use crate::lines::{Line, Lines};
use crate::options::{Options, wrong};
use crate::outbox::OutboxWriter;
use crate::page::refuse_all;
use crate::problem::{FieldError, Problem, ProblemCode};
use crate::scope::Scope;
use crate::sweep::Sweep;
use crate::wire::WireRequest;

/// A request's body that has not been read yet, and what is said about it.
pub(crate) struct Incoming<'q, B> {
    body: B,
    format: Format,
    query: &'q str,
    /// How many bytes it has, or at most has.
    bytes_max: usize,
    fingerprint: Option<Sha256>,
    takes: Takes,
}

/// What bodies a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// JSON, which it gets back for an answer that goes through it.
    Json,
    /// JSON or NDJSON.
    JsonOrNdjson,
}

/// What a body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// One object, which must be in memory as a whole.
    Json,
    /// A key on each line, which goes its way as it comes; the options are in the query.
    Ndjson,
}

/// What a request has brought, besides the keys.
pub(crate) struct Received {
    /// What it says beside them.
    pub(crate) options: Options,
    /// How the request names what it says beside keys.
    pub(crate) place: Place,
    /// The prefixes that are to be swept, but for those of a plan.
    pub(crate) prefixes: Vec<String>,
    /// How many keys there are; `None` when they are to be put in parts.
    pub(crate) taken: Option<Taken>,
    /// Tells it from a request with another body, or another query; where that was asked for.
    pub(crate) fingerprint: Option<String>,
    /// The body, for a call that takes [`Takes::Json`].
    pub(crate) body: Vec<u8>,
}

/// How long a body may take to come, in milliseconds: it holds memory as long as it does. 16 MB come at a megabit a second.
const RECEIVE_MS_MAX: u64 = 150_000;

/// Memory that taking in a request of any size needs beside a body that is there as a whole: the hashes of its keys, one row of
/// its outbox, and the copies of it that are made on the way to the ledger and to the Queue.
pub(crate) const WORKING_BYTES_MAX: usize = 8_000_000;

impl<'q, B: Body> Incoming<'q, B> {
    /// Looks at what the request says about its body: 413, 415, or 422 for a query beside JSON. A fingerprint is made for
    /// those who ask for one.
    pub(crate) fn new(
        request: Request<B>,
        query: &'q str,
        takes: Takes,
        fingerprint: Option<Sha256>,
    ) -> Result<Self, Problem> {
        let format = Format::of(&request, takes)?;
        if format == Format::Json {
            refuse_all(query, "no parameter beside JSON, which has them as members")?;
        }
        let bytes_max = request.content_length.unwrap_or(REQUEST_BYTES_MAX);
        if bytes_max > REQUEST_BYTES_MAX {
            return Err(too_large());
        }
        Ok(Self { body: request.body, format, query, bytes_max, fingerprint, takes })
    }

    /// How much memory receiving it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let working = WORKING_BYTES_MAX.min(self.bytes_max * 4);
        match self.format {
            Format::Json => self.bytes_max + working,
            Format::Ndjson => working,
        }
    }

    /// *await* Reads the body, takes in its keys, and packs those that are to be deleted into the outbox: 400, 408, 413, 422, or
    /// 403 and 503. Nothing may be accepted then.
    pub(crate) async fn receive<L: ProducerLedger>(
        self,
        scope: Scope<'_>,
        outbox: &mut OutboxWriter<'_, L>,
        host: &impl Host,
    ) -> Result<Received, Problem> {
        let received = async {
            match self.format {
                Format::Json => self.receive_json(scope, outbox, host).await,
                Format::Ndjson => self.receive_ndjson(scope, outbox, host).await,
            }
        };
        match select(pin!(received), pin!(host.sleep(RECEIVE_MS_MAX))).await {
            Either::Left((received, _)) => received,
            Either::Right(_) => {
                let seconds = RECEIVE_MS_MAX / 1_000;
                let detail =
                    format!("The body was not there within {seconds} seconds. Send the request again.");
                Err(Problem::new(ProblemCode::RequestTimeout, detail))
            }
        }
    }

    async fn receive_json<L: ProducerLedger>(
        self,
        scope: Scope<'_>,
        outbox: &mut OutboxWriter<'_, L>,
        host: &impl Host,
    ) -> Result<Received, Problem> {
        let (bytes, keeps_body) = (self.bytes_max, self.takes == Takes::Json);
        let mut reader = Reader::new(self);
        // At once, because growing by doubling would need three times as much in the end.
        reader.buffer.reserve_exact(bytes);
        while reader.read().await? {}
        let fingerprint = reader.fingerprint();

        let (json, mut beside) = (text(&reader.buffer)?, String::new());
        let (request, plain) = if let Some((request, keys)) = WireRequest::from_plain_json(json, &mut beside)
        {
            (request, Some(keys))
        } else {
            let request = WireRequest::from_json(json);
            (request.map_err(|(error, pointer)| explain(&error, &pointer))?, None)
        };
        let WireRequest { object_keys, delay_seconds, fence, labels, sweep } = request;
        let options = Options::from_json(delay_seconds, fence, labels.parse()?, Sweep::from_json(sweep)?)?;
        let place = Place::Element;
        if keeps_body {
            options.sweep.refuse(place)?;
        }
        let prefixes = options.sweep.admit(scope, place)?;
        options.sweep.check_whole(place)?;
        outbox.set_fence(options.sent_fence());
        let Some(object_keys) = object_keys else {
            if options.sweep.is_asked_for() {
                let taken = Some(Taken::default());
                return Ok(Received { options, place, prefixes, taken, fingerprint, body: Vec::new() });
            }
            scope.principal.require_any(&[Role::Delete])?;
            if options.sweep.dry_run {
                let detail = "expected no dry run in parts: their keys are deleted as they come".to_owned();
                return Err(wrong("#/dry_run", detail));
            }
            if keeps_body {
                let errors =
                    vec![FieldError { pointer: "#/in_parts".to_owned(), detail: "expected keys".to_owned() }];
                return Err(Problem::validation("This call takes no deletion in parts.", errors));
            }
            return Ok(Received { options, place, prefixes, taken: None, fingerprint, body: Vec::new() });
        };
        scope.principal.require_any(&[Role::Delete])?;
        let count = plain.as_ref().map_or(object_keys.count, |plain| plain.count);
        if count > REQUEST_KEYS_MAX {
            return Err(too_many(count));
        }
        let mut intake = Intake::new(scope, Place::Element, host.random());
        intake.expect(count);
        let plain = plain.map(|plain| plain.first);
        let mut keys = object_keys.first.iter().enumerate().map(|(at, json)| Line::Text(at, json.get()));
        let mut plain_keys = plain.iter().flatten().enumerate().map(|(at, &key)| Line::Plain(at, key));
        let keys: &mut dyn Iterator<Item = Line<'_>> =
            if plain.is_some() { &mut plain_keys } else { &mut keys };
        take_in(keys, &mut intake, outbox, options.sweep.dry_run).await?;
        let taken = intake.finish()?;
        // What was read without a length has room for the longest.
        reader.buffer.shrink_to_fit();
        let body = if keeps_body { reader.buffer } else { Vec::new() };
        Ok(Received { options, place, prefixes, taken: Some(taken), fingerprint, body })
    }

    async fn receive_ndjson<L: ProducerLedger>(
        self,
        scope: Scope<'_>,
        outbox: &mut OutboxWriter<'_, L>,
        host: &impl Host,
    ) -> Result<Received, Problem> {
        let options = Options::from_query(self.query)?;
        let place = Place::Line;
        let prefixes = options.sweep.admit(scope, place)?;
        options.sweep.check_whole(place)?;
        scope.principal.require_any(&[Role::Delete])?;
        outbox.set_fence(options.sent_fence());
        let mut reader = Reader::new(self);
        let mut intake = Intake::new(scope, Place::Line, host.random());
        let mut lines = Lines::default();
        let mut more = true;
        while more {
            more = reader.read().await?;
            let mut there = if more { lines.whole(&reader.buffer) } else { lines.rest(&reader.buffer) };
            take_in(&mut there, &mut intake, outbox, options.sweep.dry_run).await?;
            let read = there.read();
            reader.buffer.drain(..read);
            lines.shorten(&mut reader.buffer);
        }
        let fingerprint = reader.fingerprint();
        let taken = Some(intake.finish()?);
        Ok(Received { options, place, prefixes, taken, fingerprint, body: Vec::new() })
    }
}

/// *await* Takes in keys and packs those that are to be deleted: none in a dry run.
async fn take_in<L: ProducerLedger>(
    lines: &mut dyn Iterator<Item = Line<'_>>,
    intake: &mut Intake<'_>,
    outbox: &mut OutboxWriter<'_, L>,
    dry_run: bool,
) -> Result<(), Problem> {
    for line in lines {
        let key = match line {
            Line::Plain(at, text) => {
                if intake.take_text(text.as_str(), at).is_some() && !dry_run {
                    outbox.push_plain(text).await.map_err(|error| Problem::ledger(&error))?;
                }
                continue;
            }
            Line::Text(at, json) => intake.take(json, at),
            Line::TooLong(at) => intake.refuse(at, "the line is longer than any key"),
            Line::NotUtf8(at) => intake.refuse(at, "expected UTF-8"),
        };
        if let Some(key) = key.filter(|_| !dry_run) {
            outbox.push(&key).await.map_err(|error| Problem::ledger(&error))?;
        }
    }
    Ok(())
}

impl Format {
    /// 415 when it is none that the call takes.
    fn of<B>(request: &Request<B>, takes: Takes) -> Result<Self, Problem> {
        let unsupported = |detail| Err(Problem::new(ProblemCode::UnsupportedMediaType, detail));
        let encoding = request.content_encoding.as_deref();
        if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            return unsupported("The body is encoded. Send it without a Content-Encoding.");
        }
        let content_type = request.content_type.as_deref().unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/json") {
            return Ok(Self::Json);
        }
        match takes {
            Takes::Json => {
                unsupported("The body must be JSON. Send the header `Content-Type: application/json`.")
            }
            Takes::JsonOrNdjson if media_type.eq_ignore_ascii_case("application/x-ndjson") => {
                Ok(Self::Ndjson)
            }
            Takes::JsonOrNdjson => unsupported(
                "The body must be JSON. Send the header `Content-Type: application/json`, or `application/x-ndjson`.",
            ),
        }
    }
}

/// Reads a body, and makes its fingerprint on the way.
struct Reader<B> {
    body: B,
    /// What has been read, as far as it is still needed.
    buffer: Vec<u8>,
    /// How many bytes may still come.
    room: usize,
    fingerprint: Option<Sha256>,
}

impl<B: Body> Reader<B> {
    fn new(Incoming { body, query, mut fingerprint, .. }: Incoming<'_, B>) -> Self {
        // An option in the query makes as much of a difference as one in the body.
        if let Some(fingerprint) = fingerprint.as_mut().filter(|_| !query.is_empty()) {
            fingerprint.update(query);
            fingerprint.update("\n");
        }
        Self { body, buffer: Vec::new(), room: REQUEST_BYTES_MAX, fingerprint }
    }

    /// *await* Reads on; `false` at the end of the body.
    async fn read(&mut self) -> Result<bool, Problem> {
        let start = self.buffer.len();
        let more = self.body.read(&mut self.buffer, self.room).await.map_err(|error| match error {
            BodyError::TooLarge => too_large(),
            BodyError::Broken => {
                Problem::new(ProblemCode::MalformedRequest, "The body broke off. Send the request again.")
            }
        })?;
        let read = self.buffer.get(start..).unwrap_or_default();
        self.room = self.room.saturating_sub(read.len());
        if let Some(fingerprint) = &mut self.fingerprint {
            fingerprint.update(read);
        }
        Ok(more)
    }

    fn fingerprint(&mut self) -> Option<String> {
        self.fingerprint.take().map(|fingerprint| to_hex(&fingerprint.finalize()))
    }
}

fn too_large() -> Problem {
    let detail = format!(
        "The body has more than {REQUEST_BYTES_MAX} bytes. Send several requests, or put the keys in parts."
    );
    Problem::new(ProblemCode::PayloadTooLarge, detail)
}

/// Says what is wrong with a body that could not be read.
fn explain(error: &serde_json::Error, pointer: &str) -> Problem {
    let text = error.to_string();
    // A number that no type of ours holds is JSON all the same.
    if error.is_data() || text.starts_with("number out of range") {
        let errors = vec![FieldError { pointer: pointer.to_owned(), detail: text }];
        return Problem::validation("The body is not a deletion request. Nothing was accepted.", errors);
    }
    let what = if error.is_eof() { "ends early" } else { "is not valid JSON" };
    Problem::new(ProblemCode::MalformedRequest, format!("The body {what}: {text}."))
}
