//! From the command line to a server that listens.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use enigma_core::ports::IdSource;
use enigma_core::tenant::TenantIndex;
use enigma_memory::MemoryTenantDirectory;
use enigma_openai::InvalidTransport;
use enigma_operator::tenants::Problems;
use enigma_sqlite::OpenError;
use thiserror::Error;
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

use crate::adapters::{OsIds, SystemClock, TrackedBackground};
use crate::cli::Cli;
use crate::config::{Config, ConfigError, Storage, process_variables};
use crate::demo::{self, DemoError};
use crate::listen::{self, Connections};
use crate::maintenance::Maintenance;
use crate::shutdown::{self, Signals};
use crate::tenants::{self, Reloads};
use crate::weights::{self, OnDeviceError, Show};
use crate::{logging, storage, wiring};

/// Why there is no server.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("--demo needs no configuration file: unset ENIGMA_CONFIG")]
    DemoWithFile,
    #[error(transparent)]
    Tenants(#[from] Problems),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("cannot open {0}")]
    Storage(String, #[source] OpenError),
    #[error(transparent)]
    OnDevice(#[from] OnDeviceError),
    #[error(transparent)]
    Transport(#[from] InvalidTransport),
    #[error("cannot use the operating system's services")]
    System(#[from] io::Error),
}

impl StartError {
    /// 2 for what the operator has to write differently, 1 for what went wrong.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::DemoWithFile | Self::Tenants(_) => 2,
            _ => 1,
        }
    }
}

/// What is asked for on the command line.
struct Plan {
    config: Config,
    tenants: TenantIndex,
    /// The demo's key.
    demo: Option<String>,
}

/// Checks everything that the operator wrote, before anything is touched.
fn plan(cli: &Cli) -> Result<Plan, StartError> {
    let from_variable = process_variables("ENIGMA_CONFIG").map(std::path::PathBuf::from);
    if cli.demo {
        if from_variable.is_some() {
            return Err(StartError::DemoWithFile);
        }
        let directory = Path::new(demo::DIRECTORY);
        let config = Config::demo(demo::settings(directory), &cli.flags, &process_variables)?;
        start_logging(&config)?;
        let key = demo::key(directory)?;
        let section = config.ondevice.as_ref().expect("the demo's settings have the section");
        let tenants = demo::tenants(&key, &section.model)?;
        return Ok(Plan { config, tenants, demo: Some(key) });
    }
    let file = cli.config.as_deref().or(from_variable.as_deref());
    let config = Config::load(file, &cli.flags, &process_variables)?;
    start_logging(&config)?;
    let tenants = tenants::load(&config)?;
    Ok(Plan { config, tenants, demo: None })
}

fn start_logging(config: &Config) -> Result<(), StartError> {
    logging::start(&config.log).map_err(io::Error::other)?;
    Ok(())
}

/// Serves until a signal ends it.
///
/// # Errors
/// [`StartError`].
pub(crate) async fn run(cli: &Cli) -> Result<(), StartError> {
    let Plan { config, tenants, demo } = plan(cli)?;
    let mut signals = Signals::new()?;
    // A demo's tenant has no file, and ends with the terminal that it was started in.
    let mut reloads = if demo.is_none() { Some(Reloads::new()?) } else { None };
    let work = async {
        let socket = reserve(&config, demo.is_some() && !cli.flags.has("server.listen"))?;
        let stores =
            storage::open(&config.storage).map_err(|error| StartError::Storage(name(&config.storage), error))?;
        let show = if demo.is_some() { Show::Bar } else { Show::Log };
        let ondevice = match &config.ondevice {
            Some(section) => Some(weights::load(section, &show).await?),
            None => None,
        };
        Ok::<_, StartError>((socket, stores, wiring::catalog(&config, ondevice)?))
    };
    let (socket, stores, catalog) = tokio::select! {
        made = work => made?,
        // Nothing was served yet, so there is nothing to wait for.
        () = signals.next() => return Ok(()),
    };

    let background = TrackedBackground::default();
    let draining = CancellationToken::new();
    let count = tenants.tenants().count();
    let tenants = Arc::new(MemoryTenantDirectory::new(tenants));
    let maintenance = Maintenance {
        stores: stores.clone(),
        tenants: Arc::clone(&tenants),
        clock: Arc::new(SystemClock),
        ids: Arc::new(OsIds),
    };
    background.track(maintenance.run(draining.clone()));
    let tokens = wiring::tokens(&config, &background)?;
    let connections = Connections {
        router: wiring::router(&config, Arc::clone(&tenants), catalog, &stores, tokens),
        background: background.clone(),
        trusted_proxies: config.server.trusted_proxies.clone().into(),
        limit: config.server.max_connections,
        header_read_timeout: config.server.header_read_timeout,
        idle_timeout: config.server.idle_timeout,
        body_read_timeout: config.server.body_read_timeout,
        send_timeout: config.chat.send_timeout,
    };
    let listener = listen::listen(socket).map_err(|error| StartError::Listen(config.server.listen, error))?;
    let address = listener.local_addr()?;
    background.track(connections.accept(listener, draining.clone()));
    announce(address, &config, demo.as_deref());
    tracing::info!(%address, tenants = count, environment = config.environment.name, "ready");

    let reloading = async {
        match &mut reloads {
            Some(reloads) => reloads.serve(&config, &tenants).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! { () = signals.next() => {}, () = reloading => {} }
    shutdown::end(&background, &draining, config.server.shutdown_grace, &mut signals).await;
    if let Some(durable) = &stores.durable {
        shutdown::close(&durable.database, &mut signals).await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// The configured address, or, for a demo whose address is nobody's wish and taken, any free one.
fn reserve(config: &Config, any_will_do: bool) -> Result<TcpSocket, StartError> {
    let address = config.server.listen;
    let reserved = match listen::reserve(address) {
        Err(error) if any_will_do && error.kind() == io::ErrorKind::AddrInUse => {
            listen::reserve(SocketAddr::new(address.ip(), 0))
        }
        reserved => reserved,
    };
    reserved.map_err(|error| StartError::Listen(address, error))
}

fn name(storage: &Storage) -> String {
    match storage {
        Storage::Memory => "memory".to_owned(),
        Storage::File { path, .. } => path.display().to_string(),
    }
}

/// The only lines on standard output: programs read the first, people the others.
fn announce(address: SocketAddr, config: &Config, demo: Option<&str>) {
    let mut text = format!("listening on http://{address}\n");
    if let (Some(key), Some(section)) = (demo, &config.ondevice) {
        text.push_str(&demo::invitation(address, key, &section.model, OsIds.uuid()));
    }
    let mut out = io::stdout().lock();
    // Nobody may be listening there, which is no reason not to serve.
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!(%error, "cannot write to standard output");
    }
}
