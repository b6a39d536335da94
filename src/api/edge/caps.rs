//! How many connections there may be, in all and of one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;

use crate::{
    api::limit::one_address,
    config::ServerConfig,
    metrics::{ConnectionRefusal, Held, Metrics},
};

/// Gives permits, as the configuration of the moment says.
#[derive(Clone)]
pub struct Caps {
    config: Arc<ArcSwap<ServerConfig>>,
    metrics: Arc<Metrics>,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place; given back when it is dropped.
pub struct Permit {
    open: Arc<Mutex<Open>>,
    address: IpAddr,
    _held: Held,
}

impl Caps {
    pub fn new(config: Arc<ArcSwap<ServerConfig>>, metrics: Arc<Metrics>) -> Caps {
        Caps { config, metrics, open: Arc::default() }
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A place for a connection from there. Networks that are exempt from rates are exempt from the cap of
    /// one address too, not from the total.
    ///
    /// # Errors
    /// Which cap is reached.
    pub fn take(&self, ip: IpAddr) -> Result<Permit, ConnectionRefusal> {
        let config = self.config.load();
        let exempt = config.rate_exempt.iter().any(|network| network.contains(&ip.to_canonical()));
        let address = one_address(ip);
        let mut open = lock(&self.open);
        if open.total >= config.max_connections {
            return Err(ConnectionRefusal::Total);
        }
        let of_address = open.by_address.entry(address).or_insert(0);
        if !exempt && *of_address >= config.max_connections_per_address {
            return Err(ConnectionRefusal::Address);
        }
        *of_address += 1;
        open.total += 1;
        Ok(Permit { open: self.open.clone(), address, _held: Held::of(&self.metrics.connections) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.total -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// No code that holds the lock can leave it half changed.
fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
