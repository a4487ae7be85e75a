//! The command line: `init`, `serve`, `call`, `replay`, `fleet`, `check`, `passwd`, `unlock`, `backup`,
//! `restore`.

use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use base::{Timestamp, chain};
use clap::{Args, Parser, Subcommand};
use tr50d::app;
use tr50d::cli::backup::{self, BackupArgs, RestoreArgs};
use tr50d::cli::call::{self, CallArgs};
use tr50d::cli::demo;
use tr50d::cli::fleet::{self, FleetArgs};
use tr50d::cli::init::{self, InitArgs};
use tr50d::cli::passwd::{self, PasswdArgs, UnlockArgs};
use tr50d::cli::replay::{self, ReplayArgs};
use tr50d::cli::signals::{Asked, Signals};
use tr50d::config::{Config, is_demo_dir, is_variable};
use tr50d::descriptors;
use tr50d::edge::tls;
use tr50d::logging::{self, LogLevel};
use tr50d::serve::Server;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A self-hosted server for TR50, the JSON command protocol of deviceWISE and Helix devices.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    // Described where their arguments are: a line here would hide the longer text of their --help.
    Init(InitArgs),
    /// Runs the server until SIGTERM or Ctrl-C; at SIGHUP it reads certificates and log level
    /// again.
    Serve(ServeArgs),
    Call(CallArgs),
    Replay(ReplayArgs),
    Fleet(Box<FleetArgs>),
    /// Reads a configuration and says what is wrong with it.
    Check(CheckArgs),
    Passwd(PasswdArgs),
    Unlock(UnlockArgs),
    Backup(BackupArgs),
    Restore(RestoreArgs),
}

#[derive(Args)]
#[command(after_help = VARIABLES)]
struct ServeArgs {
    /// Configuration file: that of `tr50d init`, or config/tr50d.toml, a template with every key.
    /// Not needed when the environment has keys.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Starts on loopback with demo organisations, users and tokens, in a fresh directory.
    #[arg(long)]
    demo: bool,
}

#[derive(Args)]
#[command(after_help = VARIABLES)]
struct CheckArgs {
    /// Configuration file. Not needed when the environment has keys.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

const VARIABLES: &str = "\
A variable TR50D_<SECTION>__<KEY> of the environment overrides a key, such as
TR50D_MQTT__TLS_LISTEN=0.0.0.0:8883. Any other variable that begins with TR50D_ is an error,
but TR50D_URL, TR50D_PASSWORD_FILE, TR50D_CONTEXT and TR50D_TEST_CLIENTS, which are not for the
server.";

const SERVE_NEEDS: &str = "serve needs --config FILE (`tr50d init` makes one), a key in the \
     environment such as TR50D_SERVER__DATA_DIR, or --demo for a try";

const CHECK_NEEDS: &str =
    "check needs --config FILE, or a key in the environment such as TR50D_SERVER__DATA_DIR";

/// The exit status for wrong use, wrong configuration, and what can't be started.
const CANNOT: u8 = 2;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    descriptors::raise();
    // A huge page that holds one small connection keeps two megabytes; the kernel makes them out of
    // what the allocator has, so that a server would grow with time. Where it can't be told, it stays.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    if matches!(command, Command::Serve(_) | Command::Backup(_) | Command::Restore(_)) {
        // What they write has password hashes and sessions in it.
        rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    tr50d::app::watch_rests(&mut runtime);
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("can't start: {error}")),
    };
    let status = runtime.block_on(async {
        match command {
            Command::Init(args) => match init::run(args).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(why) => fail(&why),
            },
            Command::Serve(args) => serve(args).await.unwrap_or_else(|why| fail(&why)),
            Command::Call(args) if args.config.is_some() => match load(args.config.as_deref()) {
                Ok(config) => call::run_on_machine(&args, &config),
                Err(why) => fail(&why),
            },
            Command::Call(args) => call::run(args).await,
            Command::Replay(args) => replay::run(args).await,
            Command::Fleet(args) => fleet::run(*args).await,
            Command::Check(args) => check(&args),
            Command::Passwd(args) => {
                with_config(args.config.as_deref(), |config| passwd::set_password(&args, config))
            }
            Command::Unlock(args) => {
                with_config(args.config.as_deref(), |config| passwd::unlock(&args, config))
            }
            Command::Backup(args) => {
                with_config(args.config.as_deref(), |config| backup::back_up(&args, config))
            }
            Command::Restore(args) => {
                with_config(args.config.as_deref(), |config| backup::restore(&args, config))
            }
        }
    });
    // Nothing that still runs in the background is worth waiting for.
    runtime.shutdown_background();
    status
}

/// The environment's variables for the configuration.
fn environment() -> Result<Vec<(String, String)>, String> {
    let ours = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_string_lossy().into_owned();
        is_variable(&name).then_some((name, value))
    });
    ours.map(|(name, value)| match value.into_string() {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(format!("environment variable {name}: its value is not UTF-8")),
    })
    .collect()
}

/// The configuration of a file, of the environment, or of both.
fn load(file: Option<&Path>) -> Result<Config, String> {
    Config::load(file, environment()?.into_iter()).map_err(|error| error.to_string())
}

/// As [`load`], but one of the two must say something: nobody wants the defaults alone. `needs` says
/// what is needed otherwise.
fn load_any(file: Option<&Path>, needs: &str) -> Result<Config, String> {
    if file.is_none() && environment()?.is_empty() {
        return Err(needs.to_owned());
    }
    load(file)
}

fn fail(why: &str) -> ExitCode {
    eprintln!("tr50d: {why}");
    ExitCode::from(CANNOT)
}

/// Does something with a configuration, or says why not.
fn with_config(file: Option<&Path>, work: impl FnOnce(&Config) -> Result<(), String>) -> ExitCode {
    match load(file).and_then(|config| work(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

fn check(args: &CheckArgs) -> ExitCode {
    match load_any(args.config.as_deref(), CHECK_NEEDS) {
        Ok(config) => {
            let mut problems = config.check();
            problems.extend(check_tls(&config));
            if problems.is_empty() {
                problems.extend(check_bootstrap(&config));
            }
            problems.iter().for_each(|problem| eprintln!("tr50d: {problem}"));
            if problems.is_empty() {
                check_expiry(&config).iter().for_each(|warning| eprintln!("tr50d: {warning}"));
                match &args.config {
                    Some(file) => println!("{} is fine", file.display()),
                    None => println!("the environment is fine"),
                }
                return ExitCode::SUCCESS;
            }
            ExitCode::from(CANNOT)
        }
        Err(why) => fail(&why),
    }
}

/// What is wrong with certificate and key, if there are any.
fn check_tls(config: &Config) -> Option<String> {
    config.tls.cert.as_ref()?;
    tls::server_config(&config.tls).err().map(|error| error.to_string())
}

/// What should be done about the certificate soon, if there is one.
fn check_expiry(config: &Config) -> Option<String> {
    config.tls.cert.as_ref()?;
    tls::expiry_warning(&config.tls, Timestamp::now())
}

/// What is wrong with the bootstrap file, if there is one.
fn check_bootstrap(config: &Config) -> Option<String> {
    let file = config.server.bootstrap.as_deref()?;
    app::check_bootstrap(file, Timestamp::now()).err().map(|error| chain(&error))
}

async fn serve(args: ServeArgs) -> Result<ExitCode, String> {
    let sentence = |error: &dyn std::error::Error| error.to_string();
    // Before anything is made: who stops the server while it starts leaves nothing behind.
    let signals = Signals::listen();
    let mut signals = signals.map_err(|error| format!("can't wait for signals: {error}"))?;
    let mut config = serve_config(&args)?;
    let rust_log = std::env::var("RUST_LOG").ok();
    let level = logging::start(&config.log, rust_log).map_err(|error| sentence(&error))?;
    let level = Arc::new(level);
    let mut demo = match args.demo {
        true => Some(DemoDir::make(&mut config)?),
        false => None,
    };
    let server = Server::start(config).await.map_err(|error| sentence(&error))?;
    server.app().set_log_level(level.clone());
    if let Some(demo) = &mut demo {
        demo.keep_if_named();
    }
    let mut status = ExitCode::SUCCESS;
    if !signals.has_stop() {
        announce(&server, demo.as_ref()).map_err(|error| format!("can't write: {error}"))?;
        loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Reload => reload(&args, &server, &level),
                    Asked::Stop => break,
                },
                why = server.lost() => {
                    eprintln!("tr50d: {why}");
                    status = ExitCode::FAILURE;
                    break;
                }
            }
        }
    }
    if !server.stop().await {
        status = ExitCode::FAILURE;
    }
    drop(demo);
    Ok(status)
}

fn serve_config(args: &ServeArgs) -> Result<Config, String> {
    let file = args.config.as_deref();
    match args.demo {
        true => Config::demo(file, environment()?.into_iter()).map_err(|error| error.to_string()),
        false => load_any(file, SERVE_NEEDS),
    }
}

/// Reads certificates and log level again. What can't be used is said in the log, and what was in
/// use stays.
fn reload(args: &ServeArgs, server: &Server, level: &LogLevel) {
    server.app().events().reopen_log();
    let config = match serve_config(args) {
        Ok(config) => config,
        Err(error) => return tracing::error!(%error, "the configuration was not read again"),
    };
    if let Err(error) = level.set(config.log.level) {
        tracing::error!(%error, "the log level stays as it is");
    }
    match server.reload_tls(&config.tls) {
        Ok(()) => tracing::info!("certificates and log level were read again"),
        Err(error) => tracing::error!(%error, "the certificates stay as they are"),
    }
}

/// The demo's directory. What was made for the demo goes with it; a directory that the
/// configuration names stays, once the server has started in it.
struct DemoDir {
    path: PathBuf,
    goes: bool,
}

impl DemoDir {
    fn make(config: &mut Config) -> Result<Self, String> {
        let path = config.server.data_dir.clone();
        let failed = |error| format!("can't make the demo's directory {}: {error}", path.display());
        let fresh = !path.exists();
        if fresh {
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        }
        let made = Self { path: path.clone(), goes: fresh };
        if config.server.bootstrap.is_none() {
            let bootstrap = path.join("bootstrap.toml");
            std::fs::write(&bootstrap, include_str!("../fixtures/demo.toml")).map_err(failed)?;
            config.server.bootstrap = Some(bootstrap);
        }
        Ok(made)
    }

    fn keep_if_named(&mut self) {
        self.goes &= is_demo_dir(&self.path);
    }
}

impl Drop for DemoDir {
    fn drop(&mut self) {
        if self.goes {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Says where the server listens, and with `--demo` how to try it; then `ready`.
fn announce(server: &Server, demo: Option<&DemoDir>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for listening in server.listening() {
        writeln!(out, "listening {} {}", listening.name(), listening.address)?;
    }
    if let Some(demo) = demo {
        demo::write_tour(&mut out, server.listening(), &demo.path, demo.goes)?;
    }
    writeln!(out, "ready")?;
    out.flush()
}
