//! Backups with wrong bytes: they are restored as they were, or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use base::Timestamp;
use client::Client;
use serde_json::json;
use store::disk::DiskStore;
use tempfile::TempDir;
use tr50d::backup::{self, FILES};
use tr50d::things::files::blobs::Blobs;

use super::Target;
use crate::endpoints::fresh_dir;
use crate::{Endpoints, TestServer, call, http};

/// A backup, and one with wrong bytes. Each five bytes are a change of one of its files: which one, what is
/// done (0: a byte is another one, 1: it is cut off, 2: it is gone, 3: a byte more), where (two bytes), and
/// the byte. Without the digests, which backups of earlier programs have not, the engine would read
/// it, which panics twice at some wrong bytes and so ends the process.
pub struct Restore {
    dir: TempDir,
    files: Vec<PathBuf>,
    whole: BTreeMap<PathBuf, Vec<u8>>,
}

impl Target for Restore {
    const NAME: &'static str = "restore";

    fn new() -> Self {
        let dir = fresh_dir();
        let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
        fill(&data);
        let store = DiskStore::open(&data).expect("a store");
        let blobs = Blobs::new(data.join(FILES), false);
        let (now, cancelled) = (Timestamp::default(), AtomicBool::new(false));
        backup::make((&store, &blobs), &data, &backup, now, &cancelled).expect("a backup");
        drop(store);
        fs::remove_dir_all(&data).expect("removed");
        let mut files = Vec::new();
        walk(&backup, &backup, &mut files);
        files.sort();
        backup::restore(&backup, &data).expect("it is whole");
        let whole = rows(&data);
        fs::remove_dir_all(&data).expect("removed");
        Self { dir, files, whole }
    }

    fn check(&mut self, data: &[u8]) {
        let backup = self.dir.path().join("backup");
        let (changed, restored) =
            (self.dir.path().join("changed"), self.dir.path().join("restored"));
        for name in &self.files {
            let copy = changed.join(name);
            fs::create_dir_all(copy.parent().expect("a folder")).expect("a folder");
            fs::hard_link(backup.join(name), copy).expect("linked");
        }
        for change in data.chunks_exact(5).take(4) {
            let path = changed.join(&self.files[usize::from(change[0]) % self.files.len()]);
            alter(&path, change);
        }
        match backup::restore(&changed, &restored) {
            Ok(_) => {
                backup::check_restored(&restored).expect("completely");
                assert!(rows(&restored) == self.whole, "it is not what was saved");
                fs::remove_dir_all(&restored).expect("removed");
            }
            Err(_) => assert!(!restored.exists(), "nothing stays"),
        }
        fs::remove_dir_all(&changed).expect("removed");
    }
}

fn alter(path: &Path, change: &[u8]) {
    // It may be gone by now.
    let Ok(mut bytes) = fs::read(path) else { return };
    let at = usize::from(u16::from_be_bytes([change[2], change[3]]));
    let at = at % bytes.len().max(1);
    match change[1] % 4 {
        0 if bytes.is_empty() => {}
        0 => bytes[at] = change[4],
        1 => bytes.truncate(at),
        2 => return fs::remove_file(path).expect("removed"),
        _ => bytes.insert(at, change[4]),
    }
    // It may be a link.
    fs::remove_file(path).expect("removed");
    fs::write(path, bytes).expect("written");
}

/// A data directory with something of most kinds.
fn fill(data: &Path) {
    let server = TestServer::in_dir(data, &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut thing = server.thing("tcp", "thing").await;
        call(&mut thing, "property.publish", r#"{"key":"count","value":1}"#).await;
        call(&mut thing, "attribute.publish", r#"{"key":"name","value":"x"}"#).await;
        let mut operator = server.operator("tcp").await;
        store_file(&server, &mut operator).await;
        server.stop().await;
    });
}

async fn store_file(server: &Endpoints, operator: &mut Client) {
    let params = json!({"fileName": "a", "global": true}).to_string();
    let ticket = call(operator, "file.put", &params).await;
    let id = ticket["fileId"].as_str().expect("an id");
    let answer =
        http::send(server, &format!("POST /file/{id} HTTP/1.1"), b"the bytes of a file").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Every row of a store and every file beside it.
fn rows(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let store = DiskStore::open(data).expect("a store");
    let moment = store.moment().expect("a moment");
    for table in moment.tables() {
        for row in moment.rows(table) {
            let (key, value) = row.expect("a row");
            found.insert(format!("{table:?} {key:02x?}").into(), value);
        }
    }
    let mut files = Vec::new();
    if data.join(FILES).exists() {
        walk(&data.join(FILES), data, &mut files);
    }
    for name in files {
        found.insert(name.clone(), fs::read(data.join(name)).expect("a file"));
    }
    found
}

/// The names of all files below, from `top` on.
fn walk(dir: &Path, top: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, top, found);
        } else {
            found.push(path.strip_prefix(top).expect("below it").to_owned());
        }
    }
}
