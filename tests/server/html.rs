//! A look at HTML that the server wrote, for what must not be in it.

/// Elements without an end.
const VOID: [&str; 5] = ["meta", "link", "input", "br", "img"];

/// Elements in which text has a direction of its own, or is no part of a line.
const ISOLATES: [&str; 6] = ["bdi", "title", "option", "textarea", "pre", "code"];

/// Elements that the console has; others are somebody's.
const KNOWN: &[&str] = &[
    "a",
    "article",
    "b",
    "bdi",
    "body",
    "br",
    "button",
    "caption",
    "circle",
    "code",
    "dd",
    "del",
    "details",
    "div",
    "dl",
    "dt",
    "em",
    "fieldset",
    "form",
    "g",
    "h1",
    "h2",
    "h3",
    "head",
    "header",
    "html",
    "input",
    "ins",
    "kbd",
    "label",
    "legend",
    "li",
    "line",
    "link",
    "main",
    "meta",
    "meter",
    "nav",
    "ol",
    "option",
    "p",
    "path",
    "polyline",
    "pre",
    "rect",
    "script",
    "section",
    "select",
    "small",
    "span",
    "strong",
    "summary",
    "svg",
    "table",
    "tbody",
    "td",
    "text",
    "textarea",
    "th",
    "thead",
    "time",
    "title",
    "tr",
    "ul",
    "figure",
    "figcaption",
    "hr",
    "use",
];

/// A tag: its name, whether it is an end, and its attributes.
struct Tag<'a> {
    name: &'a str,
    is_end: bool,
    attributes: Vec<(&'a str, &'a str)>,
}

/// What a page is made of.
enum Piece<'a> {
    Tag(Tag<'a>),
    Text(&'a str),
}

/// The pieces; an error where a browser would have to guess.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        if at > 0 {
            pieces.push(Piece::Text(&rest[..at]));
        }
        let inside = &rest[at + 1..];
        if inside.starts_with('!') {
            rest = inside.split_once('>').ok_or("a declaration without end")?.1;
            continue;
        }
        let (tag, left) = tag(inside)?;
        pieces.push(Piece::Tag(tag));
        rest = left;
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

fn tag(text: &str) -> Result<(Tag<'_>, &str), String> {
    let (is_end, text) = match text.strip_prefix('/') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let end = text.find(|c: char| !c.is_ascii_alphanumeric()).ok_or("a tag without end")?;
    let (name, mut rest) = text.split_at(end);
    let mut attributes = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(left) = rest.strip_prefix('>') {
            return Ok((Tag { name, is_end, attributes }, left));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let end = rest.find(|c| !is_name(c)).filter(|end| *end > 0);
        let end = end.ok_or_else(|| format!("no attribute: {:.80}", rest))?;
        let (attribute, left) = rest.split_at(end);
        let Some(left) = left.strip_prefix("=\"") else {
            attributes.push((attribute, ""));
            rest = left;
            continue;
        };
        let (value, left) = left.split_once('"').ok_or("a value without end")?;
        attributes.push((attribute, value));
        rest = left;
    }
}

/// What is wrong: elements and attributes that are not the server's, text that turns what is around it
/// from right to left, ids that are there twice.
pub(crate) fn check(text: &str) -> Vec<String> {
    let pieces = match pieces(text) {
        Ok(pieces) => pieces,
        Err(error) => return vec![error],
    };
    let (mut wrong, mut open, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for piece in &pieces {
        match piece {
            Piece::Tag(tag) if tag.is_end => {
                if open.pop() != Some(tag.name) {
                    wrong.push(format!("</{}> ends nothing", tag.name));
                }
            }
            Piece::Tag(tag) => {
                if !KNOWN.contains(&tag.name) {
                    wrong.push(format!("<{}>", tag.name));
                }
                for (name, value) in &tag.attributes {
                    if name.starts_with("on") || *name == "style" || *name == "srcdoc" {
                        wrong.push(format!("{name}={value}"));
                    }
                    if *name == "id" {
                        if ids.contains(value) {
                            wrong.push(format!("id {value} twice"));
                        }
                        ids.push(value);
                    }
                }
                if !VOID.contains(&tag.name) {
                    open.push(tag.name);
                }
            }
            Piece::Text(text) if text.contains('\u{202e}') => {
                if !open.iter().any(|name| ISOLATES.contains(name)) {
                    wrong.push(format!("turned round: {open:?} {text}"));
                }
            }
            Piece::Text(_) => {}
        }
    }
    if !open.is_empty() {
        wrong.push(format!("no end of {open:?}"));
    }
    wrong
}

/// Where links, forms, scripts and pictures lead to, with the names of the attributes.
pub(crate) fn addresses(text: &str) -> Vec<(String, String)> {
    let tags = pieces(text).unwrap_or_default().into_iter().filter_map(|piece| match piece {
        Piece::Tag(tag) => Some(tag),
        Piece::Text(_) => None,
    });
    let is_address = |name: &str| matches!(name, "href" | "action" | "src" | "formaction");
    let attributes = tags.flat_map(|tag| tag.attributes);
    let found = attributes.filter(|(name, _)| is_address(name));
    found.map(|(name, value)| (name.to_owned(), unescaped(value))).collect()
}

fn unescaped(text: &str) -> String {
    text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// What stands in the page itself, without the bar above it.
pub(crate) fn text_of_main(text: &str) -> &str {
    text.split_once("<main").map_or(text, |(_, main)| main)
}
