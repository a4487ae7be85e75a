//! Fields of a form or of an address.

use std::convert::Infallible;

use base::limits;
use bytes::Bytes;
use futures_util::stream;
use multer::Multipart;
use serde::Serialize;

/// Names and values, in their order.
#[derive(Clone, Default, Debug)]
pub(super) struct Fields(Vec<(String, String)>);

/// A file that came with a form.
#[derive(Debug)]
pub(super) struct Sent {
    /// Its name where it was; empty if none was chosen.
    pub(super) name: String,
    pub(super) bytes: Bytes,
}

/// Parts that are read of a form with a file.
const PARTS_MAX: usize = 32;

impl Fields {
    /// What a form of this content type says, and the file in it. Of one that is broken, what came
    /// before that.
    pub(super) async fn of_form(kind: Option<&str>, body: Bytes) -> (Self, Option<Sent>) {
        let Some(boundary) = kind.and_then(|kind| multer::parse_boundary(kind).ok()) else {
            return (Self::read(&body), None);
        };
        let whole = stream::once(async move { Ok::<_, Infallible>(body) });
        let mut parts = Multipart::new(whole, boundary);
        let (mut fields, mut file) = (Vec::new(), None);
        for _ in 0..PARTS_MAX {
            let Ok(Some(part)) = parts.next_field().await else { break };
            let name = part.name().unwrap_or_default().to_owned();
            let of_file = part.file_name().map(unquoted);
            let Ok(bytes) = part.bytes().await else { break };
            match of_file {
                Some(name) => file = Some(Sent { name, bytes }),
                None => fields.push((name, String::from_utf8_lossy(&bytes).into_owned())),
            }
        }
        (Self(fields), file)
    }

    /// The fields of a text; of more than any page has, those that come first.
    pub(super) fn read(text: &[u8]) -> Self {
        let fields = form_urlencoded::parse(text).into_owned();
        Self(fields.take(limits::FORM_FIELDS_MAX).collect())
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

    /// The others than that of this name.
    pub(super) fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(own, _)| own != name).cloned().collect())
    }

    /// As the query of an address, with these fields in place of those of the same names; without a
    /// value a field is left out.
    pub(super) fn query_with(&self, fields: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in self.0.iter().filter(|(_, value)| !value.trim().is_empty()) {
            if fields.iter().all(|(other, _)| other != name) {
                query.append_pair(name, value);
            }
        }
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            query.append_pair(name, value);
        }
        // A comma stands for nothing but itself there, and people read addresses.
        query.finish().replace("%2C", ",")
    }

    /// Whether some field is empty, as a form without script sends those that nobody filled in.
    pub(super) fn has_empty(&self) -> bool {
        self.0.iter().any(|(_, value)| value.trim().is_empty())
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

/// The name of a file as browsers write it into the head of a part (HTML, "multipart/form-data").
fn unquoted(name: &str) -> String {
    name.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_what_is_not_empty() {
        let fields = Fields::read(b"who=&kind=user&a=1&a=+2,3+&b=%20&%26=%3D%2C");
        assert!(fields.has_empty());
        let query = fields.query_with(&[]);
        assert_eq!(query, "kind=user&a=1&a=+2,3+&%26=%3D,");
        let again = Fields::read(query.as_bytes());
        assert!(!again.has_empty());
        assert_eq!(again.query_with(&[]), query);
        assert_eq!(again.query_with(&[("a", ""), ("c", "x&y")]), "kind=user&%26=%3D,&c=x%26y");
    }

    #[tokio::test]
    async fn forms_come_with_files_and_without() {
        let read = async |kind: &'static str, body: &'static str| {
            let (fields, file) = Fields::of_form(Some(kind), body.into()).await;
            let file =
                file.map(|file| (file.name, String::from_utf8_lossy(&file.bytes).into_owned()));
            (fields.0, file)
        };
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let urlencoded = "application/x-www-form-urlencoded";
        assert_eq!(read(urlencoded, "a=1&b=x+y").await.0, [field("a", "1"), field("b", "x y")]);

        let (multipart, part) = ("multipart/form-data; boundary=B", "--B\r\nContent-Disposition: ");
        let body = format!(
            "{part}form-data; name=\"csrf\"\r\n\r\nt\r\n{part}form-data; name=\"file\"; \
             filename=\"a%22ü.bin\"\r\nContent-Type: text/plain\r\n\r\none\r\ntwo\r\n--B--\r\n"
        );
        let body: &'static str = body.leak();
        let file = Some(field("a\"ü.bin", "one\r\ntwo"));
        assert_eq!(read(multipart, body).await, (vec![field("csrf", "t")], file));
        // One that ends too early has nothing of what is not whole.
        assert_eq!(
            read(multipart, &body[..body.len() - 12]).await,
            (vec![field("csrf", "t")], None)
        );
        assert_eq!(read(multipart, "nothing").await, (vec![], None));
    }
}
