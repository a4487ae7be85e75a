//! Fields of a form or of an address.

use serde::Serialize;

/// Names and values, in their order.
#[derive(Clone, Default, Debug)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn read(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// The value of a field that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(own, value)| own == name && !value.trim().is_empty());
        found.map(|(_, value)| value.trim())
    }

    /// A field as it came; what is a secret is not trimmed.
    pub(super) fn exact(&self, name: &str) -> &str {
        self.0.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }

    /// All values of a field.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let values =
            self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.trim());
        values.filter(|value| !value.is_empty())
    }

    /// A number; none if there is none.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// The fields that are not empty.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = self.0.iter().map(|(name, value)| (name.as_str(), value.trim()));
        fields.filter(|(_, value)| !value.is_empty())
    }

    /// As the query of an address, with these fields in place of those of the same names; without a
    /// value a field is left out.
    pub(super) fn query_with(&self, fields: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in self.iter() {
            if fields.iter().all(|(other, _)| *other != name) {
                query.append_pair(name, value);
            }
        }
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            query.append_pair(name, value);
        }
        query.finish()
    }

    /// Those of these names as parameters of a command: texts, which commands read as what they
    /// stand for.
    pub(super) fn params(&self, names: &[&'static str]) -> Params {
        let mut params = Params::default();
        for name in names {
            params.set_some(name, self.get(name));
        }
        params
    }
}

/// Parameters of a command.
#[derive(Clone, Default, Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Params(serde_json::Map<String, serde_json::Value>);

impl Params {
    pub(super) fn set(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    pub(super) fn set_some(&mut self, name: &str, value: Option<impl Into<serde_json::Value>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// The same with one more.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.set(name, value);
        self
    }

    /// The same with others.
    #[must_use]
    pub(super) fn and(&self, others: Self) -> Self {
        Self(self.0.clone().into_iter().chain(others.0).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
