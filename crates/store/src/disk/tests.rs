//! The store in a directory, its engine's failures, and damage.

use std::sync::{Arc, atomic};

use super::*;
use crate::{Month, SCHEMA_VERSION, suite};

fn fresh() -> (tempfile::TempDir, DiskStore) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = DiskStore::open(&dir.path().join("data")).expect("a new store");
    (dir, store)
}

#[test]
fn behaves_as_a_store() {
    let (_dir, store) = fresh();
    suite::check_store(&store);
}

#[test]
fn agrees_with_the_model() {
    let (_dir, store) = fresh();
    suite::check_against_model(64, &store);
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let (dir, store) = fresh();
    let mut batch = Batch::default();
    batch.put(Table::Sessions, "a", "1");
    batch.put(Table::Sessions, "b", "2");
    batch.delete(Table::Sessions, "a");
    store.commit(&[batch]).expect("commit");
    drop(store);
    let store = DiskStore::open(&dir.path().join("data")).expect("the same store");
    assert_eq!(store.read(Table::Sessions, b"a").expect("read"), None);
    assert_eq!(store.read(Table::Sessions, b"b").expect("read"), Some(b"2".to_vec()));
}

/// Runs itself a second time, as a process that commits and is gone without a word.
#[test]
fn a_commit_survives_the_end_of_the_process() {
    const DIR: &str = "STORE_DIR_OF_TEST";
    if let Some(dir) = std::env::var_os(DIR) {
        let store = DiskStore::open(Path::new(&dir)).expect("a new store");
        let mut batch = Batch::default();
        batch.put(Table::Sessions, "a", "1");
        store.commit(&[batch]).expect("commit");
        std::process::abort();
    }
    let dir = tempfile::tempdir().expect("a directory");
    let child = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "disk::tests::a_commit_survives_the_end_of_the_process"])
        .env(DIR, dir.path())
        .output()
        .expect("a process");
    assert!(!child.status.success(), "it aborts");
    let store = DiskStore::open(dir.path()).expect("the same store");
    let found = store.read(Table::Sessions, b"a").expect("read");
    assert_eq!(found, Some(b"1".to_vec()));
}

#[test]
fn a_directory_has_one_owner() {
    let (dir, _store) = fresh();
    let path = dir.path().join("data");
    let second = DiskStore::open(&path).err().expect("refused");
    assert!(matches!(&second, StoreError::InUse(dir) if *dir == path), "{second:?}");
}

#[test]
fn a_newer_store_is_left_alone() {
    let (dir, store) = fresh();
    let write = |store: &DiskStore, value: &[u8]| {
        let mut batch = Batch::default();
        batch.put(Table::Meta, engine::SCHEMA_KEY, value);
        store.commit(&[batch]).expect("commit");
    };
    let path = dir.path().join("data");
    write(&store, &(SCHEMA_VERSION + 1).to_be_bytes());
    drop(store);
    let newer = DiskStore::open(&path).err().expect("refused");
    let expected = SCHEMA_VERSION + 1;
    assert!(matches!(newer, StoreError::Newer { found, .. } if found == expected));
}

fn put(key: &str, bytes: usize) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Sessions, key, vec![7; bytes]);
    batch
}

fn has(store: &DiskStore, key: &str) -> bool {
    store.read(Table::Sessions, key.as_bytes()).expect("read").is_some()
}

/// Waits until the condition of a store is what is wanted.
fn wait_for(room: &Room, wanted: impl Fn(&Condition) -> bool) {
    let since = std::time::Instant::now();
    while !wanted(&room.condition()) {
        assert!(since.elapsed() < Duration::from_secs(60), "{}", room.condition());
        crate::pause(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn an_engine_that_has_failed_is_opened_anew_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("data");
    let store = Arc::new(DiskStore::open_kept(&path, Some(0)).expect("a new store"));
    let writer = crate::Writer::spawn(store.clone(), crate::Durability::Os, &Arc::default());
    let mut month = Batch::default();
    month.put(Table::Telemetry(Month(600)), "point", "1");
    writer.submit(month).expect("room").await.expect("committed");
    for round in 0..5 {
        let before = writer.submit(put(&format!("before {round}"), 10)).expect("room");
        store.break_engine();
        assert!(matches!(writer.submit(put("refused", 1)), Err(StoreError::Unavailable)));
        before.await.expect("kept until it is open again");
        wait_for(store.room(), |condition| *condition == Condition::Good);
        let after = writer.submit(put(&format!("after {round}"), 10)).expect("room");
        after.await.expect("committed");
        assert_eq!(store.months(), [Table::Telemetry(Month(600))]);
    }
    writer.stop().await.expect("synced");
    drop(writer);
    // The writer's thread lets go of it a moment later.
    while Arc::strong_count(&store) > 1 {
        tokio::task::yield_now().await;
    }
    drop(store);
    let store = DiskStore::open(&path).expect("the same store");
    for round in 0..5 {
        assert!(has(&store, &format!("before {round}")) && has(&store, &format!("after {round}")));
    }
    assert!(!has(&store, "refused"));
}

#[test]
fn a_backup_does_not_keep_an_engine_from_being_opened_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = DiskStore::open_kept(&dir.path().join("data"), Some(0)).expect("a new store");
    store.commit(&[put("a", 1), put("b", 1)]).expect("commit");
    let moment = store.moment().expect("open");
    let rows = moment.rows(Table::Sessions).inspect(|_| {
        store.break_engine();
        wait_for(store.room(), |_| store.moment().is_err());
    });
    let rows: Vec<_> = rows.collect();
    assert!(matches!(rows.as_slice(), [Ok(_), Err(StoreError::Unavailable)]), "{rows:?}");
    drop(moment);
    wait_for(store.room(), |condition| *condition == Condition::Good);
    assert!(has(&store, "b"));
}

#[test]
fn a_directory_that_is_gone_or_replaced_is_noticed() {
    for replaced in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("data");
        let store = DiskStore::open_kept(&path, Some(0)).expect("a new store");
        std::fs::rename(&path, dir.path().join("away")).expect("moved");
        if replaced {
            drop(DiskStore::open(&path).expect("another store"));
        }
        wait_for(store.room(), |condition| matches!(condition, Condition::Lost(_)));
        assert!(!store.recovers(Duration::ZERO));
    }
}

#[test]
fn below_the_mark_the_reserve_is_let_go_of_and_what_removes_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("data");
    let store = DiskStore::open_kept(&path, Some(u64::MAX / 8)).expect("a new store");
    let condition = store.room().condition();
    assert!(matches!(condition, Condition::Full { .. }), "{condition}");
    assert!(!path.join("reserve").exists(), "there is no room for it");
    assert!(matches!(store.room().admit(&put("a", 1), 0), Err(StoreError::NoRoom)));
    let mut removal = Batch::default();
    removal.delete(Table::Sessions, "a");
    store.room().admit(&removal, 0).expect("it removes");
    drop(store);
    let store = DiskStore::open_kept(&path, Some(1024 * 1024)).expect("the same store");
    assert_eq!(store.room().condition(), Condition::Good);
    assert_eq!(std::fs::metadata(path.join("reserve")).expect("set aside").len(), 128 * 1024);
}

/// The journal of a store with some changes, and what is in its directory.
fn journal_of(changes: usize) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("data");
    let store = DiskStore::open_kept(&path, Some(0)).expect("a new store");
    for number in 0..changes {
        store.commit(&[put(&format!("key {number}"), 100)]).expect("commit");
    }
    drop(store);
    let journal = path.join("0.jnl");
    assert!(journal.exists());
    (dir, path, journal)
}

/// Where the changes in a journal end.
fn end_of(journal: &Path) -> usize {
    let bytes = std::fs::read(journal).expect("read");
    bytes.iter().rposition(|byte| *byte != 0).expect("changes") + 1
}

#[test]
fn what_was_cut_off_a_journal_is_known_at_the_next_start() {
    for keep in [0, 1000, 1500] {
        let (_dir, path, journal) = journal_of(20);
        let end = end_of(&journal);
        let file = std::fs::File::options().write(true).open(&journal).expect("opened");
        file.set_len(keep).expect("cut");
        let lost = Journals::inspect(&path).expect("read").lost();
        let [lost] = lost.as_slice() else { panic!("{keep}: {lost:?}") };
        assert!(lost.bytes >= end as u64 - keep && lost.bytes <= end as u64, "{lost:?}");
        assert!(lost.since > base::Timestamp::from_millis(0));
        let store = DiskStore::open(&path).expect("it starts with the rest");
        assert_eq!(has(&store, "key 0"), keep > 0);
        assert!(!has(&store, "key 19"));
    }
    let (_dir, path, journal) = journal_of(20);
    std::fs::remove_file(&journal).expect("removed");
    assert_eq!(Journals::inspect(&path).expect("read").lost().len(), 1);
}

#[test]
fn nothing_is_missing_of_a_journal_that_is_whole() {
    let (_dir, path, _) = journal_of(20);
    assert_eq!(Journals::inspect(&path).expect("read").lost(), []);
    drop(DiskStore::open_kept(&path, Some(0)).expect("the same store"));
    assert_eq!(Journals::inspect(&path).expect("read").lost(), []);
}

#[test]
fn no_flipped_bit_in_a_journal_goes_unnoticed() {
    let (_dir, path, journal) = journal_of(6);
    let (bytes, end) = (std::fs::read(&journal).expect("read"), end_of(&journal));
    let opened = |bytes: &[u8]| {
        let copy = tempfile::tempdir().expect("a directory");
        copy_all(&path, copy.path());
        std::fs::write(copy.path().join("0.jnl"), bytes).expect("written");
        let store = DiskStore::open(copy.path())?;
        // A bit that makes no difference is none that is missed.
        assert!((0..6).all(|number| has(&store, &format!("key {number}"))));
        Ok::<_, StoreError>(())
    };
    // Without the zeros behind them: it is read often.
    let bytes = &bytes[..end];
    opened(bytes).expect("undamaged");
    let mut harmless = 0;
    let first = end - 3 * (13 + 21 + 5 + 100 + 13);
    for at in (first..end).step_by(7).chain(first..first + 40).chain(end - 16..end) {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        let Err(error) = opened(&flipped) else {
            harmless += 1;
            continue;
        };
        assert!(matches!(error, StoreError::Damaged { .. }), "byte {at}: {error:?}");
        assert!(error.to_string().contains("tr50d restore"), "{error}");
    }
    assert!(harmless < 8, "only in the number of the last change: {harmless}");
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("read");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("known").is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

#[test]
fn damaged_tables_are_refused_with_the_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("data");
    let store = DiskStore::open(&path).expect("a new store");
    let rows = (0..1000_u32).map(|number| Ok((number.to_be_bytes().to_vec(), vec![9; 50])));
    store.fill(Table::Things, rows).expect("filled");
    drop(store);
    let mut tables = Vec::new();
    let mut look = vec![path.join("keyspaces")];
    while let Some(dir) = look.pop() {
        for entry in std::fs::read_dir(dir).expect("listed").flatten() {
            let is_table = entry.path().parent().is_some_and(|dir| dir.ends_with("tables"));
            match entry.file_type().expect("known").is_dir() {
                true => look.push(entry.path()),
                false if is_table => tables.push(entry.path()),
                false => {}
            }
        }
    }
    let largest = tables.iter().max_by_key(|path| path.metadata().expect("there").len());
    let table = largest.expect("a table was written").clone();
    let whole = std::fs::read(&table).expect("read");
    let broken = |bytes: &[u8]| {
        std::fs::write(&table, bytes).expect("written");
        let all = || {
            let store = DiskStore::open(&path)?;
            store.scan(Table::Things, Bound::Unbounded, Bound::Unbounded, usize::MAX)
        };
        all().expect_err("noticed")
    };
    let mut flipped = whole.clone();
    flipped[100] ^= 4;
    let errors = [broken(&flipped), broken(&[]), broken(&whole[..whole.len() / 2])];
    for error in errors {
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    }
    std::fs::write(&table, &whole).expect("written");
    DiskStore::open(&path).expect("whole again");
}

#[test]
fn what_others_could_read_is_mended() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, path, journal) = journal_of(1);
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    let open = |path: &Path, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).expect("changed");
    };
    let inner = path.join("keyspaces");
    open(&path, 0o755);
    open(&journal, 0o664);
    open(&inner, 0o777);
    make_private(&path, &["files"]).expect("mended");
    assert_eq!((mode(&path), mode(&journal), mode(&inner)), (0o700, 0o600, 0o700));
    make_private(&path, &["files"]).expect("nothing to do");
    // What another user owns that user can always open again.
    let given = rustix::fs::chown(&journal, Some(rustix::fs::Uid::from_raw(12345)), None);
    if given.is_ok() {
        let error = make_private(&path, &["files"]).expect_err("not ours");
        assert!(error.to_string().contains("0.jnl"), "{error}");
    }
}

#[test]
fn files_that_go_while_others_are_looked_at_are_nothing_to_mend() {
    let dir = tempfile::tempdir().expect("a directory");
    let (dir, done) = (&dir, &AtomicBool::new(false));
    let looks = std::thread::scope(|scope| {
        // As the engine's, names are not used again.
        let goes_on = |_: &u32| !done.load(atomic::Ordering::Relaxed);
        scope.spawn(move || {
            for number in (0..).take_while(goes_on) {
                let file = dir.path().join(number.to_string());
                std::fs::write(&file, "x").expect("written");
                std::fs::remove_file(&file).expect("removed");
            }
        });
        let looks: Vec<_> = (0..20_000).map(|_| make_private(dir.path(), &[])).collect();
        done.store(true, atomic::Ordering::Relaxed);
        looks
    });
    for look in looks {
        look.expect("all is private, or gone");
    }
}

#[test]
fn a_table_that_is_gone_is_not_begun_anew() {
    let (dir, store) = fresh();
    let mut batch = Batch::default();
    batch.put(Table::Things, "a", "1");
    store.commit(&[batch]).expect("commit");
    drop(store);
    let path = dir.path().join("data");
    let refused = |what: &str| {
        let error = DiskStore::open(&path).err();
        assert!(matches!(error, Some(StoreError::Damaged { .. })), "{what}: {error:?}");
    };
    let aside = dir.path().join("aside");
    let gone = [
        "keyspaces",
        "keyspaces/0",
        "keyspaces/0/current",
        "keyspaces/1",
        "keyspaces/3/current",
        "keyspaces/7",
        LOCK_FILE,
    ];
    for name in gone {
        std::fs::rename(path.join(name), &aside).expect("moved away");
        refused(name);
        // What a refused start has made in its place is none of it.
        let _ = std::fs::remove_dir_all(path.join(name));
        let _ = std::fs::remove_file(path.join(name));
        std::fs::rename(&aside, path.join(name)).expect("back");
    }
    let store = DiskStore::open(&path).expect("all is there again");
    assert_eq!(store.read(Table::Things, b"a").expect("read"), Some(b"1".to_vec()));
}
