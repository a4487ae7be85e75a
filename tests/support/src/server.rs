//! A server in the process of its test.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::panic::PanicHookInfo;
use std::path::Path;
use std::sync::{Arc, Mutex, Once, PoisonError, Weak, mpsc};
use std::thread::JoinHandle;

use base::TimeSource;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tr50d::app::App;
use tr50d::config::Config;
use tr50d::serve::Server;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, registry};

use crate::endpoints::{Endpoints, fresh_dir, settings};
use crate::{Hands, SOON, bootstrap};

/// What is logged into the output of the test, which a failure shows; `RUST_LOG` says otherwise.
const LOGGED: &str = "info,rumqttd=off,fjall=warn,lsm_tree=warn,tungstenite=warn";

/// Threads of a server: as many as a process would have on a small machine.
const WORKERS: usize = 2;

/// A demo server in this process, on threads of its own. When it is dropped, its connections end
/// without a word and its store is closed; [`TestServer::stop`] stops it in order. A test fails with
/// what panicked in its server, and when something holds the server after its end.
pub struct TestServer {
    endpoints: Endpoints,
    running: Option<Running>,
    _dir: Option<TempDir>,
}

struct Running {
    /// Stops the server in order; it just ends when this is gone.
    stop: Option<oneshot::Sender<()>>,
    stopped: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
    app: Weak<App>,
    panics: Arc<Panics>,
}

/// What panicked on the threads of a server.
type Panics = Mutex<Vec<String>>;

/// What a server says when it has started: its listeners, and what must be gone at its end.
type Started = Result<(BTreeMap<String, SocketAddr>, Weak<App>), String>;

impl TestServer {
    /// A demo server without a limit of commands a second.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A demo server with more settings, such as `("TR50D_SESSIONS__TTL_S", "1")`.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        let dir = fresh_dir();
        let mut server = Self::in_dir(&dir.path().join("data"), settings);
        server._dir = Some(dir);
        server
    }

    /// A demo server whose state is in this directory, and stays there.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn in_dir(data_dir: &Path, more: &[(&str, &str)]) -> Self {
        Self::start_by(data_dir, more, None)
    }

    /// The same, by the clock of the test.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn by_clock(data_dir: &Path, more: &[(&str, &str)], hands: Arc<Hands>) -> Self {
        Self::start_by(data_dir, more, Some(hands))
    }

    fn start_by(
        data_dir: &Path,
        more: &[(&str, &str)],
        clock: Option<Arc<dyn TimeSource>>,
    ) -> Self {
        prepare_process();
        // Read once, at the start.
        let bootstrap = bootstrap::cheap_copy(more);
        let more = [more, &[bootstrap::setting(&bootstrap)]].concat();
        let config = Config::demo(None, settings(data_dir, &more));
        let config = config.expect("settings that the server knows");
        let running = Running::start(config, clock);
        let (running, addresses) = running.unwrap_or_else(|why| panic!("no server: {why}"));
        let endpoints = Endpoints { addresses, data_dir: data_dir.to_owned() };
        Self { endpoints, running: Some(running), _dir: None }
    }

    /// Stops it in order, and waits until it is gone; the test's own tasks go on meanwhile.
    ///
    /// # Panics
    ///
    /// With what has panicked in the server.
    pub async fn stop(mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.stop.take().map(|stop| stop.send(()));
        let _ = tokio::time::timeout(SOON, &mut running.stopped).await;
        running.end();
    }
}

impl Deref for TestServer {
    type Target = Endpoints;

    fn deref(&self) -> &Endpoints {
        &self.endpoints
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        // A test that fails already says why; a second panic would end the process.
        if std::thread::panicking() {
            drop(running.stop);
            let _ = running.thread.join();
        } else {
            running.end();
        }
    }
}

impl Running {
    fn start(
        config: Config,
        clock: Option<Arc<dyn TimeSource>>,
    ) -> Result<(Self, BTreeMap<String, SocketAddr>), String> {
        let panics = Arc::<Panics>::default();
        let (ready, started) = mpsc::channel();
        let (stop, wanted) = oneshot::channel();
        let (ended, stopped) = oneshot::channel();
        let watched = panics.clone();
        let work = move || {
            let runtime = runtime(&watched);
            let left = runtime.block_on(serve(config, clock, &ready, wanted));
            // Ends all tasks, and waits for what still runs on threads that may block.
            runtime.shutdown_timeout(SOON);
            if let Some(app) = left {
                let runtime = Builder::new_current_thread().build().expect("a runtime");
                runtime.block_on(app.stop());
            }
            let _ = ended.send(());
        };
        let thread = std::thread::Builder::new().name("server".to_owned()).spawn(work);
        let thread = thread.map_err(|error| error.to_string())?;
        let started: Started = started.recv().map_err(|_| "it panicked".to_owned())?;
        let (addresses, app) = started?;
        Ok((Self { stop: Some(stop), stopped, thread, app, panics }, addresses))
    }

    /// Ends the server if nobody has, and looks what is left of it.
    fn end(self) {
        drop(self.stop);
        self.thread.join().expect("the server's thread");
        let panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(panics.is_empty(), "the server panicked: {}", panics.join("\n"));
        assert_eq!(self.app.strong_count(), 0, "something holds the server after its end");
    }
}

/// Starts the server, says so, and serves until it is to stop; what is still open, if it is to end
/// without a stop.
async fn serve(
    config: Config,
    clock: Option<Arc<dyn TimeSource>>,
    ready: &mpsc::Sender<Started>,
    wanted: oneshot::Receiver<()>,
) -> Option<Arc<App>> {
    let server = match Server::start_by(config, clock).await {
        Ok(server) => server,
        Err(error) => {
            let _ = ready.send(Err(error.to_string()));
            return None;
        }
    };
    let listening = server.listening().iter();
    let addresses = listening.map(|at| (at.name().to_owned(), at.address)).collect();
    let _ = ready.send(Ok((addresses, Arc::downgrade(server.app()))));
    if wanted.await.is_err() {
        return Some(server.app().clone());
    }
    server.stop().await;
    None
}

thread_local! {
    /// Whose panics those of this thread are.
    static PANICS: RefCell<Option<Arc<Panics>>> = const { RefCell::new(None) };
}

/// A runtime whose panics are noted.
fn runtime(panics: &Arc<Panics>) -> Runtime {
    let watch = |panics: &Arc<Panics>| PANICS.set(Some(panics.clone()));
    watch(panics);
    let panics = panics.clone();
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .on_thread_start(move || watch(&panics))
        .build()
        .expect("a runtime")
}

fn note_panic(info: &PanicHookInfo<'_>) {
    PANICS.with_borrow(|panics| {
        if let Some(panics) = panics {
            panics.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
        }
    });
}

/// What a process of the server does at its start, once for all servers of this one.
fn prepare_process() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tr50d::descriptors::raise();
        let say = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            note_panic(info);
            say(info);
        }));
        let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| LOGGED.to_owned());
        let wanted: Targets = wanted.parse().expect("directives such as info,tr50d=debug");
        let lines = fmt::layer().with_ansi(false).with_test_writer();
        registry().with(lines).with(wanted).init();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_of_a_servers_tasks_are_noted_and_others_are_not() {
        prepare_process();
        let panics = Arc::<Panics>::default();
        let server = std::thread::spawn({
            let panics = panics.clone();
            move || {
                let runtime = runtime(&panics);
                let task = runtime.spawn(async { panic!("in a task") });
                runtime.block_on(task).expect_err("a panic");
                let blocking = runtime.spawn_blocking(|| panic!("in work that blocks"));
                runtime.block_on(blocking).expect_err("a panic");
            }
        });
        server.join().expect("no panic of its own");
        std::thread::spawn(|| panic!("elsewhere")).join().expect_err("a panic");
        let noted = panics.lock().expect("no panic under the lock").join("\n");
        assert!(noted.contains("in a task") && noted.contains("in work that blocks"), "{noted}");
        assert!(!noted.contains("elsewhere"), "{noted}");
    }

    #[tokio::test]
    async fn a_stopped_server_leaves_nothing_behind_but_its_state() {
        let dir = tempfile::tempdir().expect("a directory");
        for _ in 0..2 {
            let server = TestServer::in_dir(dir.path(), &[]);
            let mut things = Vec::new();
            for listener in ["mqtt", "tcp", "http"] {
                things.push(server.thing(listener, listener).await);
            }
            let address = server.address("tcp");
            server.stop().await;
            std::net::TcpStream::connect(address).expect_err("nobody listens");
        }
        let server = TestServer::start();
        let data_dir = server.data_dir().to_owned();
        assert!(data_dir.exists());
        drop(server);
        assert!(!data_dir.exists());
    }
}
