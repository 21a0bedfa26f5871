use ledger::{PartRecord, ProducerLedger, Sealing, Sending};
use protocol::limits::PARTS_MAX;

use crate::auth::Principal;
use crate::fields::{Fields, read_small};
use crate::host::Host;
use crate::http::{Body, Response};
use crate::page::refuse_all;
use crate::problem::{ERRORS_LISTED_MAX, FieldError, Problem, ProblemCode};
use crate::queue::Queue;
use crate::read;
use crate::wire::Whole;

const PARTS: &str = "parts";
const TOTAL_KEYS: &str = "total_keys";

/// What the caller says that a deletion consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    /// The parts 1 to this.
    parts: u32,
    /// Keys in all of them, as they were asked: duplicates count.
    total_keys: u64,
}

/// `POST /v1/deletions/{id}/seal`: ends the putting of parts, if they are what the caller says they are: 202 with the deletion;
/// saying it again is answered the same way. 409 with what is missing; 404; 422 for a wrong field.
pub(crate) async fn seal(
    id: &str,
    query: &str,
    body: impl Body,
    principal: Principal<'_>,
    ledger: &impl ProducerLedger,
    queue: &impl Queue,
    host: &impl Host,
) -> Result<Response, Problem> {
    refuse_all(query, "no parameter: this call takes none")?;
    let said = Said::from_json(&read_small(body).await?)?;
    let id = read::find_own(id, principal, ledger, host).await?.id;
    let sealing = ledger.seal_deletion(&id, said.parts, said.total_keys, host.now()).await;
    let sealing = sealing.map_err(|error| Problem::ledger(&error))?;
    for finished in &sealing.ended.finished {
        host.emit(&finished.event(host.now()));
        // Whether anybody wants the notice, the consumer knows. If this fails, upkeep sees to it.
        let _ = queue.send(vec![finished.notice().to_message()], 0).await;
    }
    let errors = said.compare(&sealing.parts);
    if sealing.is_sealed && errors.is_empty() {
        return read::accepted(&id, principal, ledger, host).await;
    }
    Err(refuse(&sealing, errors))
}

fn refuse(sealing: &Sealing, errors: Vec<FieldError>) -> Problem {
    if errors.is_empty() {
        // All of it is there and it takes no parts: it is cancelled.
        return Problem::new(ProblemCode::DeletionCancelled, "The deletion was cancelled.");
    }
    let detail = if sealing.is_sealed {
        "The deletion was sealed as something else: it came as a whole, or with other parts. It stays as it is."
    } else {
        "The parts are not what the request says they are. Put what is missing and seal it again; nothing else of it is lost."
    };
    Problem::new(ProblemCode::PartsIncomplete, detail).with_errors(errors)
}

impl Said {
    fn from_json(body: &[u8]) -> Result<Self, Problem> {
        let fields = Fields::from_json(body, &[PARTS, TOTAL_KEYS])?;
        let expected = format!("how many parts there are, from 1 to {PARTS_MAX}");
        let parts = fields.get(PARTS, &expected)?.and_then(|Whole(parts)| u32::try_from(parts).ok());
        let parts = parts.filter(|parts| (1..=PARTS_MAX).contains(parts));
        let parts = parts.ok_or_else(|| Fields::wrong(PARTS, &expected))?;
        let expected = "how many keys there are in all parts, duplicates included";
        let total_keys = fields.get(TOTAL_KEYS, expected)?.map(|Whole(keys)| keys);
        let total_keys = total_keys.filter(|&keys| keys > 0 && keys < 1 << 53);
        let total_keys = total_keys.ok_or_else(|| Fields::wrong(TOTAL_KEYS, expected))?;
        Ok(Self { parts, total_keys })
    }

    /// What of it is not so.
    fn compare(self, parts: &[PartRecord]) -> Vec<FieldError> {
        let error = |field: &str, detail| FieldError { pointer: format!("#/{field}"), detail };
        let find = |number| parts.iter().find(|part| part.part == number);
        let mut errors: Vec<FieldError> = (1..=self.parts)
            .filter_map(|number| match find(number) {
                None => Some(error(PARTS, format!("part {number} is missing"))),
                Some(PartRecord { sending: Sending::Held { .. }, .. }) => {
                    Some(error(PARTS, format!("part {number} is not stored whole, put it again")))
                }
                Some(PartRecord { sending: Sending::Done, .. }) => None,
            })
            .take(ERRORS_LISTED_MAX)
            .collect();
        let last = parts.last().filter(|last| last.part > self.parts && errors.len() < ERRORS_LISTED_MAX);
        if let Some(last) = last {
            errors.push(error(PARTS, format!("part {} is there too", last.part)));
        }
        let keys: u64 = parts.iter().map(|part| part.keys + part.duplicates_removed).sum();
        if errors.is_empty() && keys != self.total_keys {
            errors.push(error(TOTAL_KEYS, format!("the parts have {keys} keys")));
        }
        errors
    }
}
