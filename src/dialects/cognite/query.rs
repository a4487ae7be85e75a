//! Query parameters of a request.

use std::borrow::Cow;

use super::error::Error;

/// What to do with a `limit` that is too large.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Above {
    /// It is read as the largest: the Python SDK asks for 1000 principals though the documentation
    /// says 100 (`docs/protocol/cognite.md` A4).
    IsClamped,
    /// It is an error.
    IsRefused,
}

/// The parameters of one request. Those that nobody asks for are ignored.
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads what stands behind the `?`.
    pub fn read(text: Option<&'a str>) -> Self {
        Self(form_urlencoded::parse(text.unwrap_or_default().as_bytes()).collect())
    }

    /// Every value of a parameter, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// The value of a parameter that may be there once.
    ///
    /// # Errors
    ///
    /// It is there more than once.
    pub fn single(&self, name: &str) -> Result<Option<&str>, Error> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            Some(_) => Err(Error::parameter(name, "is there more than once")),
            None => Ok(first),
        }
    }

    /// The parameter `limit`: how many items a page may have.
    ///
    /// # Errors
    ///
    /// It is no whole number, less than 1, or too large where that `is_refused`.
    pub fn limit(&self, default: usize, max: usize, above: Above) -> Result<usize, Error> {
        let Some(text) = self.single("limit")? else { return Ok(default) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than a number can have are too large, not wrong.
        let number = digits.then(|| text.parse().unwrap_or(usize::MAX));
        match (number, above) {
            (Some(number @ 1..), Above::IsClamped) => Ok(number.min(max)),
            (Some(number), Above::IsRefused) if (1..=max).contains(&number) => Ok(number),
            _ => Err(Error::parameter("limit", &format!("has to be a number from 1 to {max}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_within_bounds() {
        let check = |query: &str, above, expected: Option<usize>| {
            let read = Query::read(Some(query)).limit(25, 100, above);
            assert_eq!(read.ok(), expected, "{query} {above:?}");
        };
        for above in [Above::IsClamped, Above::IsRefused] {
            check("", above, Some(25));
            check("Limit=7&limi=8", above, Some(25));
            check("limit=1", above, Some(1));
            check("limit=%31%30&x", above, Some(10));
            check("limit=100", above, Some(100));
            for bad in ["0", "-1", "", "1.0", "+1", "%201", "1e1", "x", "null", "\u{661}"] {
                check(&format!("limit={bad}"), above, None);
            }
            check("limit=7&limit=7", above, None);
        }
        for large in ["101", "1000", "99999999999999999999999"] {
            check(&format!("limit={large}"), Above::IsClamped, Some(100));
            check(&format!("limit={large}"), Above::IsRefused, None);
        }
    }
}
