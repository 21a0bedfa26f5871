//! The events that are known, and their fields that may be shown.
//!
//! A test holds this to [`protocol::Event`]: an event or a field that it does not know makes it fail.

use protocol::Severity;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Bool,
    /// An id, a name, a code or a sentence of ours: no event has a key in it.
    Text,
}

/// The Worker that an event is of, where only one has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Emitter {
    Producer,
    Consumer,
    Either,
}

impl Emitter {
    /// The Worker's name as it is deployed, for a line of the log that does not say it.
    pub(super) fn worker(self) -> Option<&'static str> {
        match self {
            Self::Producer => Some("r2-deletion-producer"),
            Self::Consumer => Some("r2-deletion-consumer"),
            Self::Either => None,
        }
    }
}

/// One known event.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) emitter: Emitter,
    /// How loud it is where it does not say so itself.
    pub(super) severity: Severity,
    pub(super) fields: &'static [(&'static str, Kind)],
}

/// What is known of the event of that name.
pub(super) fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

use Emitter::{Consumer, Either, Producer};
use Kind::{Bool, Number, Text};
use Severity::{Error, Info, Warn};

const NOTICE: &[(&str, Kind)] = &[
    ("deletion", Text),
    ("generation", Number),
    ("attempt", Number),
    ("http.response.status_code", Number),
    ("error.type", Text),
    ("delay_seconds", Number),
];

const KNOWN: [Known; 19] = [
    Known {
        name: "request.finished",
        emitter: Producer,
        severity: Info,
        fields: &[
            ("request_id", Text),
            ("http.request.method", Text),
            ("http.route", Text),
            ("http.response.status_code", Number),
            ("error.type", Text),
            ("cause", Text),
            ("duration_ms", Number),
        ],
    },
    Known {
        name: "deletion.accepted",
        emitter: Producer,
        severity: Info,
        fields: &[
            ("deletion", Text),
            ("request_id", Text),
            ("requested_by", Text),
            ("keys", Number),
            ("duplicates_removed", Number),
            ("messages", Number),
            ("prefixes", Number),
            ("dry_run", Bool),
        ],
    },
    Known {
        name: "deletion.resent",
        emitter: Consumer,
        severity: Warn,
        fields: &[("deletion", Text), ("messages", Number)],
    },
    Known {
        name: "upkeep.finished",
        emitter: Consumer,
        severity: Info,
        fields: &[
            ("abandoned", Number),
            ("resent", Number),
            ("removed", Number),
            ("notices", Number),
            ("sweeps", Number),
            ("duration_ms", Number),
        ],
    },
    Known {
        name: "part.accepted",
        emitter: Producer,
        severity: Info,
        fields: &[
            ("deletion", Text),
            ("part", Number),
            ("request_id", Text),
            ("keys", Number),
            ("duplicates_removed", Number),
            ("messages", Number),
        ],
    },
    Known {
        name: "redrive.started",
        emitter: Producer,
        severity: Info,
        fields: &[
            ("deletion", Text),
            ("request_id", Text),
            ("generation", Number),
            ("keys", Number),
            ("messages", Number),
        ],
    },
    Known {
        name: "deletion.finished",
        emitter: Either,
        severity: Info,
        fields: &[
            ("deletion", Text),
            ("generation", Number),
            ("state", Text),
            ("total", Number),
            ("deleted", Number),
            ("skipped", Number),
            ("failed", Number),
            ("duration_ms", Number),
        ],
    },
    Known {
        name: "sweep.progressed",
        emitter: Consumer,
        severity: Info,
        fields: &[
            ("deletion", Text),
            ("sweep", Number),
            ("step", Number),
            ("phase", Text),
            ("pages", Number),
            ("keys_deleted", Number),
            ("keys_skipped", Number),
            ("keys_failed", Number),
            ("keys_undecided", Number),
            ("is_over", Bool),
            ("error.type", Text),
            ("r2_code", Number),
            ("delay_seconds", Number),
        ],
    },
    Known {
        name: "batch.processed",
        emitter: Consumer,
        severity: Info,
        fields: &[
            ("messaging.system", Text),
            ("messaging.destination.name", Text),
            ("messaging.batch.message_count", Number),
            ("acked", Number),
            ("retried", Number),
            ("keys_deleted", Number),
            ("keys_skipped", Number),
            ("keys_failed", Number),
            ("keys_undecided", Number),
            ("r2_calls", Number),
            ("r2_heads", Number),
            ("r2_lists", Number),
            ("fence_gap_ms", Number),
            ("oldest_message_ms", Number),
            ("duration_ms", Number),
            ("error.type", Text),
        ],
    },
    Known {
        name: "chunk.retried",
        emitter: Consumer,
        severity: Warn,
        fields: &[
            ("deletion", Text),
            ("chunk", Number),
            ("generation", Number),
            ("attempt", Number),
            ("delay_seconds", Number),
            ("keys_undecided", Number),
            ("error.type", Text),
            ("r2_code", Number),
        ],
    },
    Known {
        name: "chunk.split",
        emitter: Consumer,
        severity: Warn,
        fields: &[
            ("deletion", Text),
            ("chunk", Number),
            ("generation", Number),
            ("splits", Number),
            ("r2_calls", Number),
            ("keys_failed", Number),
        ],
    },
    Known {
        name: "chunk.dead_lettered",
        emitter: Consumer,
        severity: Error,
        fields: &[
            ("deletion", Text),
            ("chunk", Number),
            ("generation", Number),
            ("keys_failed", Number),
            ("error.type", Text),
        ],
    },
    Known {
        name: "message.unreadable",
        emitter: Consumer,
        severity: Error,
        fields: &[("messaging.message.id", Text), ("error.type", Text)],
    },
    Known { name: "notice.delivered", emitter: Consumer, severity: Info, fields: NOTICE },
    Known { name: "notice.retried", emitter: Consumer, severity: Warn, fields: NOTICE },
    Known { name: "notice.failed", emitter: Consumer, severity: Error, fields: NOTICE },
    Known {
        name: "ledger.failed",
        emitter: Either,
        severity: Error,
        fields: &[("operation", Text), ("cause", Text)],
    },
    Known { name: "rate_limiter.failed", emitter: Producer, severity: Warn, fields: &[("cause", Text)] },
    Known {
        name: "config.invalid",
        emitter: Either,
        severity: Error,
        fields: &[("cause", Text), ("r2_code", Number)],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use syn::{Attribute, Expr, Field, Fields, Item, LitStr, Type};

    use super::*;

    type Named = BTreeMap<String, Kind>;

    /// What `#[serde(rename = "…")]` says.
    fn renamed(attributes: &[Attribute]) -> Option<String> {
        let mut name = None;
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
            attribute
                .parse_nested_meta(|meta| {
                    if meta.path.is_ident("rename") {
                        name = Some(meta.value()?.parse::<LitStr>()?.value());
                    } else if let Ok(value) = meta.value() {
                        value.parse::<Expr>()?;
                    }
                    Ok(())
                })
                .unwrap();
        }
        name
    }

    /// The last word of a type, and of an option that of what is in it.
    fn kind(of: &Type) -> Kind {
        match of {
            Type::Reference(reference) => kind(&reference.elem),
            Type::Path(path) => {
                let last = path.path.segments.last().unwrap();
                if let syn::PathArguments::AngleBracketed(inner) = &last.arguments
                    && let Some(syn::GenericArgument::Type(inner)) = inner.args.first()
                {
                    return kind(inner);
                }
                match last.ident.to_string().as_str() {
                    "u16" | "u32" | "u64" | "usize" => Number,
                    "bool" => Bool,
                    "str" | "DeletionId" | "RequestId" | "State" | "FailureCode" | "UnreadableReason" => Text,
                    other => panic!("May a {other} be shown to anybody? If so, say here what it is."),
                }
            }
            _ => panic!("a field of another kind"),
        }
    }

    fn named<'a>(fields: impl IntoIterator<Item = &'a Field>) -> Named {
        let name = |field: &Field| {
            renamed(&field.attrs).unwrap_or_else(|| field.ident.as_ref().unwrap().to_string())
        };
        fields.into_iter().map(|field| (name(field), kind(&field.ty))).collect()
    }

    /// The events of `protocol`, from its source: an enum that more may be added to cannot be matched to its end.
    fn of_protocol() -> BTreeMap<String, Named> {
        let source = syn::parse_file(include_str!("../../../protocol/src/event.rs")).unwrap();
        let mut notice = Named::new();
        let mut events = BTreeMap::new();
        for item in &source.items {
            if let Item::Struct(item) = item
                && item.ident == "NoticeAttempt"
            {
                notice = named(&item.fields);
            }
        }
        for item in &source.items {
            if let Item::Enum(item) = item
                && item.ident == "Event"
            {
                events.extend(item.variants.iter().map(|event| {
                    let fields = match &event.fields {
                        Fields::Named(fields) => named(&fields.named),
                        _ => notice.clone(),
                    };
                    (renamed(&event.attrs).unwrap(), fields)
                }));
            }
        }
        events
    }

    #[test]
    fn every_event_of_the_protocol_is_known_with_all_of_its_fields() {
        let known: BTreeMap<_, Named> = KNOWN
            .iter()
            .map(|known| {
                let fields = known.fields.iter().map(|(name, kind)| ((*name).to_owned(), *kind));
                (known.name.to_owned(), fields.collect())
            })
            .collect();
        assert_eq!(known, of_protocol());
    }
}
