//! A browser without a screen: it asks for the console's pages, keeps the cookie and sends forms.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::{Answer, dial, send};
use crate::{Endpoints, SOON};

/// Somebody's browser.
#[derive(Clone)]
pub struct Browser<'a> {
    server: &'a Endpoints,
    cookie: Option<String>,
    csrf: String,
    takes_gzip: bool,
}

impl<'a> Browser<'a> {
    /// One in which nobody is logged in.
    pub const fn new(server: &'a Endpoints) -> Self {
        Self { server, cookie: None, csrf: String::new(), takes_gzip: false }
    }

    /// One in which somebody is logged in, by name and password.
    ///
    /// # Panics
    ///
    /// If the login fails.
    pub async fn login(server: &'a Endpoints, name: &str, password: &str) -> Self {
        let mut browser = Self::new(server);
        let answer = browser.log_in(&[("username", name), ("password", password)]).await;
        assert_eq!(answer.status, 303, "{answer:?}");
        browser
    }

    /// Sends the form of the login, and keeps the session that it gives.
    pub async fn log_in(&mut self, fields: &[(&str, &str)]) -> Answer {
        let answer = self.post("/login", fields).await;
        let cookie = answer.header("set-cookie").and_then(|line| line.split(';').next());
        if let Some(cookie) = cookie {
            self.cookie = Some(cookie.to_owned());
            let page = self.get("/me").await;
            self.csrf = csrf(page.text()).unwrap_or_default();
        }
        answer
    }

    /// The session's id, as the cookie has it.
    ///
    /// # Panics
    ///
    /// If nobody is logged in.
    pub fn session_id(&self) -> &str {
        let cookie = self.cookie.as_deref().expect("a login");
        cookie.split_once('=').expect("a value").1
    }

    /// The public handle of the session.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub async fn reference(&self) -> String {
        let body = r#"{"1":{"command":"session.info"}}"#;
        let head = format!("POST /api HTTP/1.1\r\nsessionId: {}", self.session_id());
        let info = send(self.server, &head, body.as_bytes()).await.json();
        info["1"]["params"]["ref"].as_str().expect("a live session").to_owned()
    }

    /// The token that its forms carry.
    pub fn csrf(&self) -> &str {
        &self.csrf
    }

    /// The same browser with another token in its forms.
    pub fn with_csrf(&self, csrf: &str) -> Self {
        Self { csrf: csrf.to_owned(), ..self.clone() }
    }

    /// The same browser, which takes answers that are compressed, too.
    #[must_use]
    pub fn taking_gzip(&self) -> Self {
        Self { takes_gzip: true, ..self.clone() }
    }

    /// Asks for a page.
    pub async fn get(&self, path: &str) -> Answer {
        send(self.server, &self.head("GET", path), b"").await
    }

    /// A page that is there.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.text().to_owned()
    }

    /// Follows the window of an address.
    ///
    /// # Panics
    ///
    /// If the server is not there.
    pub async fn watch(&self, address: &str) -> Watch {
        let view: String = form_urlencoded::byte_serialize(address.as_bytes()).collect();
        let head = self.head("GET", &format!("/events?view={view}"));
        let mut stream = dial(self.server).await;
        stream.write_all(format!("{head}\r\nHost: x\r\n\r\n").as_bytes()).await.expect("sent");
        Watch { stream, text: String::new() }
    }

    /// Sends a form, with the token of the session's pages.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let head = format!(
            "{}\r\nOrigin: http://x\r\nContent-Type: application/x-www-form-urlencoded",
            self.head("POST", path)
        );
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.append_pair("csrf", &self.csrf).extend_pairs(fields);
        send(self.server, &head, body.finish().as_bytes()).await
    }

    /// Sends a form with a file, as a browser does.
    pub async fn upload(&self, path: &str, name: &str, bytes: &[u8]) -> Answer {
        let head = format!(
            "{}\r\nOrigin: http://x\r\nContent-Type: multipart/form-data; boundary=----B",
            self.head("POST", path)
        );
        let begin = "------B\r\nContent-Disposition: form-data; name=";
        let before = format!(
            "{begin}\"csrf\"\r\n\r\n{}\r\n{begin}\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n",
            self.csrf
        );
        let body = [before.as_bytes(), bytes, b"\r\n------B--\r\n"].concat();
        send(self.server, &head, &body).await
    }

    /// The first line of a request, and what a browser says with each.
    fn head(&self, method: &str, path: &str) -> String {
        let cookie = self.cookie.as_ref().map(|cookie| format!("\r\nCookie: {cookie}"));
        let cookie = cookie.unwrap_or_default();
        let takes = if self.takes_gzip { "\r\nAccept-Encoding: gzip" } else { "" };
        format!("{method} {path} HTTP/1.1\r\nUser-Agent: Browser/1{takes}{cookie}")
    }
}

/// The stream that keeps a page of a browser up to date.
pub struct Watch {
    stream: TcpStream,
    text: String,
}

impl Watch {
    /// All that has come when these words are there, which is forgotten then.
    ///
    /// # Panics
    ///
    /// If they do not come [`SOON`].
    pub async fn until(&mut self, words: &str) -> String {
        let mut bytes = [0; 4096];
        while !self.text.contains(words) {
            let read = timeout(SOON, self.stream.read(&mut bytes)).await;
            let count = read.unwrap_or_else(|_| panic!("no {words}: {}", self.text));
            let count = count.expect("read");
            assert!(count > 0, "it ended: {}", self.text);
            self.text += &String::from_utf8_lossy(&bytes[..count]);
        }
        std::mem::take(&mut self.text)
    }
}

/// The token in the forms of a page.
fn csrf(page: &str) -> Option<String> {
    part(page, r#"name="csrf" value=""#, "\"").map(str::to_owned)
}

/// What stands on a page between the first place of one text and the next of another.
pub fn part<'a>(page: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(before)?;
    rest.split_once(after).map(|(part, _)| part)
}

/// The value of the first field with a name, as the page has it.
pub fn input<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = page.split("<input ").skip(1).filter_map(|field| field.split('>').next());
    let wanted = format!("name=\"{name}\"");
    part(fields.find(|field| field.contains(&wanted))?, "value=\"", "\"")
}
