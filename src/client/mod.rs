//! The controller's library: sign, submit, follow, ask, cancel.
//!
//! Everything is safe to repeat: a lost answer is asked for again with the same signed bytes, a cut
//! stream is taken up where it broke. An agent that has never answered is reported at once; one that
//! has answered before is waited for (it may be restarting), up to [`Retry::patience`].

mod ahead;
mod backoff;
mod calls;
mod error;
mod follow;
mod send;
mod socket;
mod tls;

#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::Url;
use secrecy::SecretString;

use crate::wire::key::SigningKey;

pub use calls::{Downloaded, ListFilter};
pub use error::{ConnectFault, Error, Refusal, TlsFault};
pub use follow::Follow;
pub use tls::{Identity, Trust};

/// Who calls which agent, and how patiently.
#[derive(Debug)]
pub struct Settings {
    /// `https://host:port`, or `http://` for an agent on loopback. A path is kept as a prefix.
    pub url: Url,
    pub controller_id: String,
    /// What signs, with its name where the controller has several keys ([`SigningKey::named`]); `None`
    /// can only ask what the agent tells anybody.
    pub key: Option<SigningKey>,
    /// A bearer token: what reads are proved with in the place of a key, and cancellations where there is no key.
    pub token: Option<SecretString>,
    pub trust: Trust,
    /// Our own certificate, for agents that ask for one.
    pub identity: Option<Identity>,
    /// Time limit of making a connection, TLS included.
    pub connect_timeout: Duration,
    /// Time limit of one request and its answer; of each piece of a download.
    pub request_timeout: Duration,
    /// A stream that is silent for so long is taken as dead and opened anew. The agent pings every 20 s.
    pub idle_timeout: Duration,
    pub retry: Retry,
}

/// When and for how long something is tried again.
#[derive(Debug, Clone)]
pub struct Retry {
    /// The first wait; doubles up to `longest`.
    pub first: Duration,
    pub longest: Duration,
    /// Give up on a request after this long. Below the agent's 300 s of accepted age, so that a
    /// repeated submission is still fresh.
    pub patience: Duration,
    /// Give up on a stream after this long without a sign of life.
    pub stream_patience: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(5),
            patience: Duration::from_secs(60),
            stream_patience: Duration::from_secs(300),
        }
    }
}

impl Settings {
    /// The defaults for that agent and controller, trusting the system's certificate authorities.
    pub fn new(url: Url, controller_id: impl Into<String>) -> Settings {
        Settings {
            url,
            controller_id: controller_id.into(),
            key: None,
            token: None,
            trust: Trust::System,
            identity: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(50),
            retry: Retry::default(),
        }
    }
}

/// Whether what goes to that address stays on this machine. Of names, only `localhost` is sure to.
fn on_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host == "localhost",
    }
}

/// A controller's connection to one agent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
    /// Whose jobs are meant, where an id alone may not say it.
    of: Option<Arc<str>>,
    /// The only agent that may take what is signed, where that is known.
    at: Option<Arc<str>>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    http: reqwest::Client,
    tls: Arc<rustls::ClientConfig>,
    /// Whether the agent has ever answered: then its silence may be a restart.
    reached: AtomicBool,
    /// The connection that the next stream may take.
    ahead: ahead::Ahead,
}

impl Client {
    /// Checks the settings and reads the certificates; connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Setting`]: the address is no agent's, or the certificates can't be read; [`Error::Plain`]:
    /// it is another machine's, without TLS.
    pub fn new(settings: Settings) -> Result<Client, Error> {
        if !matches!(settings.url.scheme(), "https" | "http") || settings.url.host().is_none() {
            return Err(Error::Setting(format!(
                "{} is no address of an agent; it has the form https://host:8443",
                settings.url
            )));
        }
        if settings.url.scheme() == "http" && !on_loopback(&settings.url) {
            return Err(Error::Plain {
                url: settings.url.as_str().trim_end_matches('/').to_owned(),
                cause: "what is sent to another machine must be encrypted",
            });
        }
        let tls = tls::config(&settings.trust, settings.identity.as_ref())?;
        // Not HTTP/2: there is one request at a time, and it would cost each of them more frames and tasks.
        let mut for_http = tls.clone();
        for_http.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(for_http)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.request_timeout)
            .user_agent(concat!("quickcmd/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Setting(error::chain(&error)))?;
        let inner = Inner {
            settings,
            http,
            tls: Arc::new(tls),
            reached: AtomicBool::new(false),
            ahead: ahead::Ahead::default(),
        };
        Ok(Client { inner: Arc::new(inner), of: None, at: None })
    }

    /// The same client; by a job's id it means that controller's.
    #[must_use]
    pub fn of(mut self, controller_id: Option<&str>) -> Client {
        self.of = controller_id.map(Arc::from);
        self
    }

    /// The same client; its signed cancellations are for that agent alone. (Of a job its payload says it.)
    #[must_use]
    pub fn at(mut self, agent_id: Option<&str>) -> Client {
        self.at = agent_id.map(Arc::from);
        self
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Whether the agent has answered anything yet.
    fn reached(&self) -> bool {
        self.inner.reached.load(Ordering::Relaxed)
    }

    fn mark_reached(&self) {
        self.inner.reached.store(true, Ordering::Relaxed);
    }
}
