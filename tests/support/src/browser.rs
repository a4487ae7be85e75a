//! A browser without a screen: it asks for the console's pages, keeps the cookie and sends forms.

use crate::Endpoints;
use crate::http::{Answer, send};

/// Somebody's browser.
pub struct Browser<'a> {
    server: &'a Endpoints,
    cookie: Option<String>,
    csrf: String,
}

impl<'a> Browser<'a> {
    /// One in which nobody is logged in.
    pub const fn new(server: &'a Endpoints) -> Self {
        Self { server, cookie: None, csrf: String::new() }
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

    /// The same browser with another token in its forms.
    pub fn with_csrf(&self, csrf: &str) -> Self {
        Self { server: self.server, cookie: self.cookie.clone(), csrf: csrf.to_owned() }
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
        format!("{method} {path} HTTP/1.1\r\nUser-Agent: Browser/1{cookie}")
    }
}

/// The token in the forms of a page.
fn csrf(page: &str) -> Option<String> {
    let (_, rest) = page.split_once(r#"name="csrf" value=""#)?;
    Some(rest.split('"').next()?.to_owned())
}
