//! QR codes, drawn as SVG.

use std::fmt::Write;

use maud::{Markup, html};
use qrcode::{Color, QrCode};

/// Modules of white around a code, which readers need (ISO/IEC 18004, 9.1).
const QUIET: usize = 4;

/// A text as a picture; none if it is too long for one. `label`: what it is, for who can't see it.
pub(super) fn picture(text: &str, label: &str) -> Option<Markup> {
    let code = QrCode::new(text).ok()?;
    let (width, colors) = (code.width(), code.to_colors());
    let mut path = String::new();
    for (y, row) in colors.chunks(width).enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|one, next| one == next) {
            if run.first() == Some(&Color::Dark) {
                let (x, y, run) = (x + QUIET, y + QUIET, run.len());
                // A String takes what is written.
                let _ = write!(path, "M{x} {y}h{run}v1h-{run}z");
            }
            x += run.len();
        }
    }
    let side = width + 2 * QUIET;
    Some(html! {
        svg class="qr" role="img" aria-label=(label) viewBox=(format!("0 0 {side} {side}"))
            shape-rendering="crispEdges" {
            rect width=(side) height=(side) fill="#fff" {}
            path d=(path) fill="#000" {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dark_modules_are_drawn_inside_the_quiet_zone() {
        let picture = picture("otpauth://totp/x?secret=ABC", "the code").expect("it fits");
        let text = picture.into_string();
        // The corner of the first finder pattern: seven dark modules.
        assert!(text.contains("M4 4h7v1h-7z"), "{text}");
        assert!(text.contains(r#"aria-label="the code""#), "{text}");
        assert!(super::picture(&"x".repeat(8000), "").is_none());
    }
}
