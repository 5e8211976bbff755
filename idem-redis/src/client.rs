//! The address of Redis and the way to connect: one server, a cluster, or the server that sentinels name.
//!
//! Owns the URLs, the settings of sockets, and opening a [`Link`]. Does not own when a link is opened or given up.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion,
    RedisError, RedisResult,
};

use crate::link::Link;

/// The limit of one try to connect.
const CONNECT: Duration = Duration::from_millis(300);

/// The pauses before the second and the third try to connect.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(80)];

/// The limit of opening a link, with all its tries. Each sentinel or node that does not answer costs a second.
const OPENING: Duration = Duration::from_secs(5);

/// A client of the application, whose addresses, credentials and certificates the backend connects with.
///
/// It is made from a [`redis::Client`], a [`redis::cluster::ClusterClient`] or a [`redis::sentinel::SentinelClient`] for a
/// primary, or by [`cluster`](Self::cluster) from clients of some nodes. These are types of `redis` 1, the version that this
/// crate exports as `idem_redis::redis`. Clients of another version of that crate do not fit.
///
/// ```
/// use idem_redis::{RedisClient, redis};
///
/// # fn main() -> redis::RedisResult<()> {
/// let client: RedisClient = redis::Client::open("redis://127.0.0.1/")?.into();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisClient(Deployment);

#[derive(Clone)]
enum Deployment {
    Server(Box<Client>),
    /// Clients of some of the nodes; at least one.
    Cluster(Arc<[Client]>),
    /// One node of a cluster.
    Node(Box<Client>),
    ClusterClient(Box<ClusterClient>),
    Sentinel(Arc<tokio::sync::Mutex<SentinelClient>>),
}

impl From<Client> for RedisClient {
    fn from(client: Client) -> Self {
        Self(Deployment::Server(client.into()))
    }
}

/// The client must use RESP3 (`use_protocol(ProtocolVersion::RESP3)`), because the backend receives messages for waiting
/// duplicates over it. Otherwise [`RedisBackend::connect_with`](crate::RedisBackend::connect_with) fails.
///
/// Prefer [`RedisClient::cluster`]. A `ClusterClient` finds the nodes by itself, and while one node hangs, it waits for that
/// node; meanwhile, requests for the keys of all other nodes fail. [`RedisClient::cluster`] does not have this weakness.
impl From<ClusterClient> for RedisClient {
    fn from(client: ClusterClient) -> Self {
        Self(Deployment::ClusterClient(client.into()))
    }
}

/// The client must be for the primary ([`SentinelServerType::Master`]).
impl From<SentinelClient> for RedisClient {
    fn from(client: SentinelClient) -> Self {
        Self(Deployment::Sentinel(Arc::new(client.into())))
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A client would show the address and the user.
        f.write_str(match self.0 {
            Deployment::Server(_) => "RedisClient(Server)",
            Deployment::Cluster(_) => "RedisClient(Cluster)",
            Deployment::Node(_) => "RedisClient(Node)",
            Deployment::ClusterClient(_) => "RedisClient(ClusterClient)",
            Deployment::Sentinel(_) => "RedisClient(Sentinel)",
        })
    }
}

/// Receives the messages that a server pushes.
pub(crate) type PushReceiver = Arc<dyn AsyncPushSender>;

impl RedisClient {
    /// The client for a URL, with socket settings for low latency.
    pub(crate) fn for_url(url: &str) -> RedisResult<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        match scheme.split_once('+') {
            Some((scheme, "cluster")) => Self::for_cluster(&Seeds::of(scheme, rest)?),
            Some((scheme, "sentinel")) => Self::for_sentinels(&Seeds::of(scheme, rest)?),
            _ => Client::open(tuned(url)?).map(Self::from),
        }
    }

    fn for_cluster(seeds: &Seeds<'_>) -> RedisResult<Self> {
        let node = |host: &&str| Client::open(tuned(seeds.url(host, seeds.rest))?);
        Self::cluster(seeds.hosts.iter().map(node).collect::<RedisResult<Vec<_>>>()?)
    }

    /// The cluster that `nodes` belong to. The backend asks them for the other nodes, and connects to all nodes with the
    /// credentials, certificates and settings of the first client.
    ///
    /// ```
    /// use idem_redis::{RedisClient, redis};
    ///
    /// # fn main() -> redis::RedisResult<()> {
    /// let node = |host: &str| redis::Client::open(format!("redis://app:secret@{host}/"));
    /// let client = RedisClient::cluster([node("10.0.0.1:6379")?, node("10.0.0.2:6379")?])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidClientConfig`] if `nodes` is empty, or if a node is reached over a Unix socket.
    pub fn cluster(nodes: impl IntoIterator<Item = Client>) -> RedisResult<Self> {
        let nodes: Arc<[Client]> = nodes.into_iter().collect();
        if nodes.is_empty() || nodes.iter().any(|node| Address::of(node).is_none()) {
            return Err(unusable("a cluster is found by the hosts of some of its nodes"));
        }
        Ok(Self(Deployment::Cluster(nodes)))
    }

    fn for_sentinels(seeds: &Seeds<'_>) -> RedisResult<Self> {
        /// The default port of sentinels.
        const PORT: &str = ":26379";
        let path = seeds.rest.strip_prefix('/').unwrap_or_default();
        let (service, rest) = path.split_at(path.find(['/', '?', '#']).unwrap_or(path.len()));
        if service.is_empty() {
            return Err(unusable(
                "say after the sentinels which primary they watch: redis+sentinel://host/name",
            ));
        }
        let mut sentinels = Vec::new();
        let mut server = SentinelNodeConnectionInfo::default().set_tcp_settings(tcp());
        for host in &seeds.hosts {
            let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
            let info = tuned(seeds.url(&format!("{host}{}", if has_port { "" } else { PORT }), rest))?;
            // The credentials and the database are for the server; the sentinels have their own.
            server = server.set_redis_connection_info(info.redis_settings().clone());
            if let Some(mode) = tls_mode(&info) {
                server = server.set_tls_mode(mode);
            }
            sentinels.push(info.set_redis_settings(redis::RedisConnectionInfo::default()));
        }
        let kind = SentinelServerType::Master;
        SentinelClient::build(sentinels, String::from(service), Some(server), kind).map(Self::from)
    }

    /// Whether the keys are spread over several servers.
    pub(crate) fn is_cluster(&self) -> bool {
        !matches!(self.0, Deployment::Server(_) | Deployment::Sentinel(_))
    }

    /// Whether sentinels name the server.
    pub(crate) fn has_sentinels(&self) -> bool {
        matches!(self.0, Deployment::Sentinel(_))
    }

    /// Whether the client subscribes again by itself after it has lost a connection.
    pub(crate) fn subscribes_by_itself(&self) -> bool {
        matches!(self.0, Deployment::ClusterClient(_))
    }

    /// The first nodes of a cluster whose calls this crate routes.
    pub(crate) fn nodes(&self) -> Option<&Arc<[Client]>> {
        match &self.0 {
            Deployment::Cluster(nodes) => Some(nodes),
            _ => None,
        }
    }

    /// One node of a cluster.
    pub(crate) fn node(client: Client) -> Self {
        Self(Deployment::Node(client.into()))
    }

    /// Connects, in up to three tries a few milliseconds apart. With `push`, over RESP3.
    pub(crate) async fn open(&self, push: Option<PushReceiver>) -> RedisResult<Link> {
        let tries = async {
            for pause in PAUSES {
                match self.open_once(push.clone()).await {
                    Err(error) if error.is_io_error() => tokio::time::sleep(pause).await,
                    opened => return opened,
                }
            }
            self.open_once(push).await
        };
        let opened = tokio::time::timeout(OPENING, tries).await;
        opened.unwrap_or_else(|elapsed| Err(io::Error::from(elapsed).into()))
    }

    async fn open_once(&self, push: Option<PushReceiver>) -> RedisResult<Link> {
        match &self.0 {
            Deployment::Server(client) => open_server(client, push).await.map(Link::Server),
            Deployment::Node(client) => open_server(client, push).await.map(Link::Node),
            Deployment::Cluster(_) => Err(unusable("a cluster has a connection for each node")),
            Deployment::ClusterClient(client) => {
                let mut config = ClusterConfig::new();
                if let Some(push) = push {
                    config = config.set_push_sender(push);
                }
                client.get_async_connection_with_config(config).await.map(Link::Cluster)
            }
            Deployment::Sentinel(client) => {
                let primary = client.lock().await.async_get_client().await?;
                open_server(&primary, push).await.map(Link::Server)
            }
        }
    }
}

async fn open_server(client: &Client, push: Option<PushReceiver>) -> RedisResult<MultiplexedConnection> {
    let mut config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(None);
    let mut client = client.clone();
    if let Some(push) = push {
        let info = client.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        client = Client::open(info.set_redis_settings(settings))?;
        config = config.set_push_sender(push);
    }
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// The address of a node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// The address that `client` connects to; `None` for a Unix socket.
    pub(crate) fn of(client: &Client) -> Option<Self> {
        match client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => Some(Self {
                host: host.clone(),
                port: *port,
            }),
            _ => None,
        }
    }

    /// A client of the node at this address, with all other settings of `other`.
    pub(crate) fn client_like(&self, other: &Client) -> RedisResult<Client> {
        let info = other.get_connection_info().clone();
        let Self { host, port } = self.clone();
        let address = match info.addr().clone() {
            ConnectionAddr::TcpTls {
                insecure, tls_params, ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure,
                tls_params,
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        Client::open(info.set_addr(address))
    }
}

/// A URL with several hosts: `user:password@host:port,host:port/rest`.
struct Seeds<'a> {
    scheme: &'a str,
    credentials: &'a str,
    hosts: Vec<&'a str>,
    rest: &'a str,
}

impl<'a> Seeds<'a> {
    fn of(scheme: &'a str, rest: &'a str) -> RedisResult<Self> {
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (credentials, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        let hosts: Vec<_> = hosts.split(',').collect();
        if hosts.iter().any(|host| host.is_empty()) {
            return Err(unusable("a host of the Redis URL is empty"));
        }
        Ok(Self {
            scheme,
            credentials,
            hosts,
            rest,
        })
    }

    /// The URL of one of the hosts.
    fn url(&self, host: &str, rest: &str) -> String {
        format!("{}://{}{host}{rest}", self.scheme, self.credentials)
    }
}

fn unusable(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, why))
}

fn tls_mode(info: &ConnectionInfo) -> Option<redis::TlsMode> {
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => Some(redis::TlsMode::Insecure),
        ConnectionAddr::TcpTls { .. } => Some(redis::TlsMode::Secure),
        _ => None,
    }
}

fn tuned(url: impl IntoConnectionInfo) -> RedisResult<ConnectionInfo> {
    Ok(url.into_connection_info()?.set_tcp_settings(tcp()))
}

/// Sends each command at once, and lets the system notice that a peer has gone.
fn tcp() -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let settings = settings.set_user_timeout(Duration::from_secs(2));
    settings
}
