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
use tokio_util::sync::CancellationToken;

use crate::adapters::{OsIds, SystemClock, TrackedBackground};
use crate::address_limit::AddressLimit;
use crate::cli::Cli;
use crate::config::{Config, ConfigError, Storage, process_variables};
use crate::demo::{self, DemoError};
use crate::listen::Connections;
use crate::maintenance::Maintenance;
use crate::reload::{Files, Hangup, Looks};
use crate::service_manager::{self, State};
use crate::shutdown::{self, Signals};
use crate::sockets::{Inherited, Listener, Place, Reserved};
use crate::tls::{Certificates, TlsError};
use crate::weights::{self, OnDevice, OnDeviceError, Show};
use crate::workers::Workers;
use crate::{compression, descriptors, logging, speech, storage, tenants, wiring};

/// Why there is no server.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("--demo needs no configuration file: unset ENIGMA_CONFIG")]
    DemoWithFile,
    #[error("--demo needs a chat model: ondevice.model_id is none")]
    DemoWithoutModel,
    #[error(transparent)]
    Tenants(#[from] Problems),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error("cannot listen on {0}")]
    Listen(String, #[source] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
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
            Self::Config(_) | Self::DemoWithFile | Self::DemoWithoutModel | Self::Tenants(_) | Self::Tls(_) => 2,
            _ => 1,
        }
    }
}

/// What is asked for on the command line.
struct Plan {
    config: Config,
    tenants: TenantIndex,
    certificates: Option<Arc<Certificates>>,
    /// How the files looked that these come from.
    looks: Looks,
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
        let chat = section.chat.as_ref().ok_or(StartError::DemoWithoutModel)?;
        let embedder = section.embeddings.as_ref().map(|local| &local.model);
        let tenants = demo::tenants(&key, &chat.local.model, embedder)?;
        return finished(config, |_| Ok(tenants), Some(key));
    }
    let file = cli.config.as_deref().or(from_variable.as_deref());
    let config = Config::load(file, &cli.flags, &process_variables)?;
    start_logging(&config)?;
    finished(config, tenants::load, None)
}

fn finished(
    config: Config,
    tenants: impl FnOnce(&Config) -> Result<TenantIndex, Problems>,
    demo: Option<String>,
) -> Result<Plan, StartError> {
    let looks = Looks::now(&config);
    let tenants = tenants(&config)?;
    let certificates = config.tls.clone().map(Certificates::load).transpose()?;
    Ok(Plan { config, tenants, certificates, looks, demo })
}

fn start_logging(config: &Config) -> Result<(), StartError> {
    logging::start(&config.log).map_err(io::Error::other)?;
    Ok(())
}

/// Serves until a signal ends it.
///
/// # Errors
/// [`StartError`].
pub(crate) async fn run(cli: &Cli, inherited: Inherited) -> Result<(), StartError> {
    let Plan { config, tenants, certificates, looks, demo } = plan(cli)?;
    let config = Arc::new(config);
    let mut signals = Signals::new()?;
    // A demo's tenant has no file, and ends with the terminal that it was started in.
    let mut hangup = if demo.is_none() { Some(Hangup::new()?) } else { None };
    descriptors::raise(config.server.max_connections);
    let work = async {
        let places = reserve(&config, inherited, demo.is_some() && !cli.flags.has("server.listen"))?;
        let stores =
            storage::open(&config.storage).map_err(|error| StartError::Storage(name(&config.storage), error))?;
        let show = if demo.is_some() { Show::Bar } else { Show::Log };
        let ondevice = match &config.ondevice {
            Some(section) => weights::load(section, &show).await?,
            None => OnDevice::default(),
        };
        let espeak = match &config.espeak {
            Some(section) => speech::detect(section, &tenants).await,
            None => None,
        };
        Ok::<_, StartError>((places, stores, wiring::catalogs(&config, ondevice, espeak)?))
    };
    let (places, stores, catalogs) = tokio::select! {
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
    let router = wiring::router(&config, Arc::clone(&tenants), catalogs, &stores, tokens);
    let per_address = config.server.max_connections_per_address;
    let connections = Connections {
        workers: Workers::start()?,
        router: if config.server.compression { compression::layer(router) } else { router },
        background: background.clone(),
        trusted_proxies: Arc::new(config.server.trusted_proxies.clone()),
        tls: certificates.as_ref().map(Certificates::acceptor).transpose()?,
        limit: config.server.max_connections,
        limit_per_address: (per_address > 0).then(|| AddressLimit::new(per_address)),
        header_read_timeout: config.server.header_read_timeout,
        idle_timeout: config.server.idle_timeout,
        body_read_timeout: config.server.body_read_timeout,
        send_timeout: config.chat.send_timeout,
    };
    let listeners = places.listen()?;
    let names =
        listeners.iter().map(|listener| listener.name(certificates.is_some())).collect::<Result<Vec<_>, _>>()?;
    let address = listeners.iter().find_map(Listener::address);
    background.track(connections.accept(listeners, draining.clone()));
    announce(&names, address, &config, demo.as_deref());
    tracing::info!(addresses = names.join(", "), tenants = count, environment = config.environment.name, "ready");
    service_manager::tell(State::Ready);

    let files = Files { config: Arc::clone(&config), directory: tenants, certificates };
    let reloading = async {
        match &mut hangup {
            Some(hangup) => files.keep_up(looks, hangup).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! { () = signals.next() => {}, () = reloading => {} }
    service_manager::tell(State::Stopping);
    shutdown::end(&background, &draining, config.server.shutdown_grace, &mut signals).await;
    if let Some(durable) = &stores.durable {
        shutdown::close(&durable.database, &mut signals).await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Where it will be listened.
enum Places {
    /// Wherever whoever started this process already does.
    Inherited(Inherited),
    Own(Vec<(Place, Reserved)>),
}

impl Places {
    fn listen(self) -> Result<Vec<Listener>, StartError> {
        match self {
            Self::Inherited(sockets) => {
                sockets.listen().map_err(|error| StartError::Listen("a socket that was handed over".to_owned(), error))
            }
            Self::Own(places) => places
                .into_iter()
                .map(|(place, reserved)| {
                    reserved.listen().map_err(|error| StartError::Listen(place.to_string(), error))
                })
                .collect(),
        }
    }
}

/// The sockets that were handed over; else the configured places, or, for a demo whose address is nobody's wish and taken, any
/// free one.
fn reserve(config: &Config, inherited: Inherited, any_will_do: bool) -> Result<Places, StartError> {
    if inherited.is_some() {
        return Ok(Places::Inherited(inherited));
    }
    let reserve = |place: &Place| {
        let mode = config.server.socket_mode;
        let reserved = match (Reserved::new(place, mode), place) {
            (Err(error), Place::Tcp(address)) if any_will_do && error.kind() == io::ErrorKind::AddrInUse => {
                Reserved::new(&Place::Tcp(SocketAddr::new(address.ip(), 0)), mode)
            }
            (reserved, _) => reserved,
        };
        let reserved = reserved.map_err(|error| StartError::Listen(place.to_string(), error))?;
        Ok((place.clone(), reserved))
    };
    config.server.listen.iter().map(reserve).collect::<Result<_, _>>().map(Places::Own)
}

fn name(storage: &Storage) -> String {
    match storage {
        Storage::Memory => "memory".to_owned(),
        Storage::File { path, .. } => path.display().to_string(),
    }
}

/// The only lines on standard output: programs read the first, people the others.
fn announce(names: &[String], address: Option<SocketAddr>, config: &Config, demo: Option<&str>) {
    let mut text = String::new();
    for name in names {
        text.extend(["listening on ", name, "\n"]);
    }
    let chat = config.ondevice.as_ref().and_then(|section| section.chat.as_ref());
    if let (Some(key), Some(chat), Some(address)) = (demo, chat, address) {
        text.push_str(&demo::invitation(address, key, &chat.local.model, OsIds.uuid()));
    }
    let mut out = io::stdout().lock();
    // Nobody may be listening there, which is no reason not to serve.
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!(%error, "cannot write to standard output");
    }
}
