use crate::assets::Assets;
use crate::http::{Response, ResponseBody};
use crate::problem::{Problem, ProblemCode};

/// `GET /openapi.json`: 200 with the description of this API; 503 when it cannot be read.
///
/// It is a file, because it is a fifth of what the wasm may take.
pub(crate) async fn read_description(assets: &impl Assets) -> Result<Response, Problem> {
    let description = assets.read("/openapi.json").await.map_err(|cause| {
        let detail = "The description of the API cannot be read.";
        Problem::new(ProblemCode::NotReady, detail).with_cause(cause).with_header("Retry-After", "5")
    })?;
    Ok(Response {
        status: 200,
        headers: vec![("Content-Type", "application/json".to_owned())],
        body: ResponseBody::Text(description),
    })
}

#[cfg(test)]
pub(crate) mod tests;
