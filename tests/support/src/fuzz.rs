//! What must hold whatever comes in: the checks that the fuzz targets in `fuzz/` run on bytes that
//! libFuzzer makes, and `cargo test` on those that it found.

mod cursors;
mod directory;
mod envelope;
mod http_bodies;
mod mqtt_frames;
mod mqtt_stream;
mod proxy;
mod restore;
mod shares;
mod tcp_stream;

use std::cell::RefCell;
use std::fs;
use std::path::Path;

pub use cursors::Cursors;
pub use directory::DirectorySteps;
pub use envelope::Envelope;
pub use http_bodies::HttpBodies;
pub use mqtt_frames::MqttFrames;
pub use mqtt_stream::MqttStream;
pub use proxy::ProxyHeader;
pub use restore::Restore;
pub use shares::SharesSteps;
pub use tcp_stream::TcpStreams;

/// A check, with what it keeps from one input to the next.
pub trait Target {
    /// The name of its corpus.
    const NAME: &'static str;

    /// Prepares it.
    fn new() -> Self;

    /// Panics if the server does with these bytes what it must not.
    fn check(&mut self, data: &[u8]);
}

/// Checks one input of many: the target is made with the first.
pub fn run<T: Target + 'static>(data: &[u8]) {
    type Check = Box<dyn FnMut(&[u8])>;
    thread_local! {
        static CHECK: RefCell<Option<Check>> = const { RefCell::new(None) };
    }
    CHECK.with_borrow_mut(|check| {
        check.get_or_insert_with(|| {
            let mut target = T::new();
            Box::new(move |data| target.check(data))
        })(data);
    });
}

/// Checks every file of a corpus, and what once failed.
///
/// # Panics
///
/// If one fails, or if there is no corpus.
pub fn replay<T: Target>() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut target = T::new();
    let mut count = 0;
    for folder in ["corpus", "regressions"] {
        let folder = fuzz.join(folder).join(T::NAME);
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let _name = NameIfFails(&path);
            target.check(&fs::read(&path).expect("a file"));
            count += 1;
        }
    }
    assert!(count > 0, "{} has no corpus", T::NAME);
}

/// Says which input failed.
struct NameIfFails<'a>(&'a Path);

impl Drop for NameIfFails<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: {}", self.0.display());
        }
    }
}

/// The pieces of a stream: the first byte says in how many it is cut, the next ones where.
fn cut(data: &[u8]) -> (Vec<usize>, &[u8]) {
    let Some((&count, rest)) = data.split_first() else { return (Vec::new(), data) };
    let (sizes, bytes) = rest.split_at(usize::from(count % 16).min(rest.len()));
    (sizes.iter().map(|size| usize::from(*size) + 1).collect(), bytes)
}

/// A stream in pieces of these sizes, and what is left.
fn pieces<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes {
        let (piece, rest) = bytes.split_at((*size).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}
