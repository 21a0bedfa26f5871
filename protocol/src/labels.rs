use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A caller's names and values for a deletion, each name once, in the order of the names.
///
/// A sorted list, because a tree of strings would be a tenth of the producer's wasm for at most 16 of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    /// Adds a label; `false` when there is one of that name, which stays as it is.
    pub fn insert(&mut self, name: String, value: String) -> bool {
        match self.0.binary_search_by(|(found, _)| found.cmp(&name)) {
            Ok(_) => false,
            Err(place) => {
                self.0.insert(place, (name, value));
                true
            }
        }
    }

    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(found, value)| (found == name).then_some(value))
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        let mut labels = Self::default();
        for (name, value) in pairs {
            labels.insert(name, value);
        }
        labels
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LabelsVisitor)
    }
}

struct LabelsVisitor;

impl<'de> Visitor<'de> for LabelsVisitor {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
        let mut labels = Labels::default();
        while let Some((name, value)) = map.next_entry()? {
            labels.insert(name, value);
        }
        Ok(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_read_back_sorted_and_each_name_once() {
        let labels: Labels = serde_json::from_str(r#"{"b":"2","a":"1","c":""}"#).unwrap();
        assert_eq!(serde_json::to_string(&labels).unwrap(), r#"{"a":"1","b":"2","c":""}"#);
        assert_eq!((labels.get("b"), labels.get("d"), labels.len()), (Some("2"), None, 3));
        let pairs = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs.collect::<Labels>(), labels);
        assert!(Labels::default().is_empty() && !labels.is_empty());
        let error = serde_json::from_str::<Labels>("[]").unwrap_err().to_string();
        assert!(error.contains("expected an object of strings"), "{error}");
        let mut labels = labels;
        assert!(!labels.insert("a".to_owned(), "other".to_owned()));
        assert_eq!(labels.get("a"), Some("1"));
    }
}
