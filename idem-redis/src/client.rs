//! Where Redis is, and how it is reached: one server, a cluster, or whichever server sentinels name.
//!
//! Owns the URLs, the settings of sockets, and opening a [`Link`]. Does not own when a link is opened, or given up.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::AsyncPushSender;
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError,
    RedisResult,
};

use crate::link::Link;

/// The longest that connecting may take, once.
const CONNECT: Duration = Duration::from_millis(300);

/// How long to wait before connecting is tried again, and again.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(80)];

/// The longest that opening a link may take with all its tries: sentinels and nodes that do not answer cost a second
/// each.
const OPENING: Duration = Duration::from_secs(5);

/// How long a node of a cluster may take for one answer. Callers have the engine's deadline; this is for what the
/// client asks by itself.
const CLUSTER_SILENCE: Duration = Duration::from_secs(1);

/// Redirections and repeats of one call by the cluster client. Every operation is safe to repeat.
const CLUSTER_RETRIES: u32 = 4;

/// A client of the application's own, to connect with its addresses, credentials and certificates.
///
/// Made from a [`redis::Client`], a [`redis::cluster::ClusterClient`] or a [`redis::sentinel::SentinelClient`] for a
/// primary. Its time-outs and retries are its own; only a deadline of the engine's lies around each call.
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
    Cluster(Box<ClusterClient>),
    Sentinel(Arc<tokio::sync::Mutex<SentinelClient>>),
}

impl From<Client> for RedisClient {
    fn from(client: Client) -> Self {
        Self(Deployment::Server(client.into()))
    }
}

/// The client has to speak RESP3 (`use_protocol(ProtocolVersion::RESP3)`), or duplicates cannot be told that they need
/// not wait any longer. Connecting fails otherwise.
impl From<ClusterClient> for RedisClient {
    fn from(client: ClusterClient) -> Self {
        Self(Deployment::Cluster(client.into()))
    }
}

/// The client has to be one for the primary ([`SentinelServerType::Master`]).
impl From<SentinelClient> for RedisClient {
    fn from(client: SentinelClient) -> Self {
        Self(Deployment::Sentinel(Arc::new(client.into())))
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A client would show where it leads to, and as whom.
        f.write_str(match self.0 {
            Deployment::Server(_) => "RedisClient(Server)",
            Deployment::Cluster(_) => "RedisClient(Cluster)",
            Deployment::Sentinel(_) => "RedisClient(Sentinel)",
        })
    }
}

/// What takes the messages that a server sends by itself.
pub(crate) type PushReceiver = Arc<dyn AsyncPushSender>;

impl RedisClient {
    /// The client for a URL, with sockets set up for requests that somebody waits for.
    pub(crate) fn for_url(url: &str) -> RedisResult<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        match scheme.split_once('+') {
            Some((scheme, "cluster")) => Self::for_cluster(&Seeds::of(scheme, rest)?),
            Some((scheme, "sentinel")) => Self::for_sentinels(&Seeds::of(scheme, rest)?),
            _ => Client::open(tuned(url)?).map(Self::from),
        }
    }

    fn for_cluster(seeds: &Seeds<'_>) -> RedisResult<Self> {
        let nodes = seeds.hosts.iter().map(|host| seeds.url(host, seeds.rest));
        let client = ClusterClient::builder(nodes)
            .use_protocol(ProtocolVersion::RESP3)
            .tcp_settings(tcp())
            .connection_timeout(CONNECT)
            .response_timeout(CLUSTER_SILENCE)
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(20)
            .max_retry_wait(100);
        client.build().map(Self::from)
    }

    fn for_sentinels(seeds: &Seeds<'_>) -> RedisResult<Self> {
        /// Where sentinels listen where nothing else is said.
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
            // The credentials and the database are for the server, and not for the sentinels.
            server = server.set_redis_connection_info(info.redis_settings().clone());
            if let Some(mode) = tls_mode(&info) {
                server = server.set_tls_mode(mode);
            }
            sentinels.push(info.set_redis_settings(redis::RedisConnectionInfo::default()));
        }
        let kind = SentinelServerType::Master;
        SentinelClient::build(sentinels, String::from(service), Some(server), kind).map(Self::from)
    }

    /// Whether the server is one of several that share the keys among them.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.0, Deployment::Cluster(_))
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
            Deployment::Server(client) => open_server(client, push).await,
            Deployment::Cluster(client) => {
                let mut config = ClusterConfig::new();
                if let Some(push) = push {
                    config = config.set_push_sender(push);
                }
                client.get_async_connection_with_config(config).await.map(Link::Cluster)
            }
            Deployment::Sentinel(client) => {
                let primary = client.lock().await.async_get_client().await?;
                open_server(&primary, push).await
            }
        }
    }
}

async fn open_server(client: &Client, push: Option<PushReceiver>) -> RedisResult<Link> {
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
    let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    Ok(Link::Server(connection))
}

/// Several hosts in the place of one: `user:password@host:port,host:port/rest`.
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

    /// The URL of one of them.
    fn url(&self, host: &str, rest: &str) -> String {
        format!("{}://{}{host}{rest}", self.scheme, self.credentials)
    }
}

fn unusable(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, why))
}

fn tls_mode(info: &ConnectionInfo) -> Option<redis::TlsMode> {
    match info.addr() {
        redis::ConnectionAddr::TcpTls { insecure: true, .. } => Some(redis::TlsMode::Insecure),
        redis::ConnectionAddr::TcpTls { .. } => Some(redis::TlsMode::Secure),
        _ => None,
    }
}

fn tuned(url: impl IntoConnectionInfo) -> RedisResult<ConnectionInfo> {
    Ok(url.into_connection_info()?.set_tcp_settings(tcp()))
}

/// Sends each command at once, and lets the system notice that a peer is gone.
fn tcp() -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let settings = settings.set_user_timeout(Duration::from_secs(2));
    settings
}
