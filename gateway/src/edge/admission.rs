//! How many connections are open, in all and from one address.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::address::ClientAddress;
use crate::telemetry;

/// Counts connections, and admits no more than there may be.
#[derive(Debug)]
pub struct Admission {
    all_max: usize,
    per_address_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// Only addresses with something open are in it.
    by_address: HashMap<ClientAddress, usize>,
}

impl Open {
    fn count(&mut self, address: ClientAddress, max: usize) -> Result<(), Full> {
        let of_address = self.by_address.get(&address).copied().unwrap_or_default();
        if of_address >= max {
            return Err(Full::Address);
        }
        self.by_address.insert(address, of_address + 1);
        Ok(())
    }
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// This gateway has as many connections as it may have.
    Gateway,
    /// The address has as many.
    Address,
}

impl Full {
    /// Its name in metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Gateway => "connections",
            Self::Address => "address_connections",
        }
    }
}

/// One open connection; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    of: Of,
}

/// What a place counts for.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// A socket whose client is known.
    Socket(ClientAddress),
    /// A socket of a proxy, which is many clients'.
    Proxy,
    /// What a client has open behind a proxy.
    Client(ClientAddress),
}

impl Of {
    const fn is_socket(self) -> bool {
        matches!(self, Self::Socket(_) | Self::Proxy)
    }

    const fn address(self) -> Option<ClientAddress> {
        match self {
            Self::Socket(address) | Self::Client(address) => Some(address),
            Self::Proxy => None,
        }
    }
}

impl Admission {
    /// Admits so many in all, and so many of an address.
    pub fn new(all_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { all_max, per_address_max, open: Mutex::default() })
    }

    /// A place for a socket; of a proxy's socket the address says nothing.
    pub fn socket(self: &Arc<Self>, address: Option<ClientAddress>) -> Result<Place, Full> {
        self.admit(address.map_or(Of::Proxy, Of::Socket))
    }

    /// A place for what a client has open behind a proxy, beside that of the socket.
    pub fn client(self: &Arc<Self>, address: ClientAddress) -> Result<Place, Full> {
        self.admit(Of::Client(address))
    }

    fn admit(self: &Arc<Self>, of: Of) -> Result<Place, Full> {
        let mut open = self.open.lock();
        if of.is_socket() && open.all >= self.all_max {
            return Err(Full::Gateway);
        }
        if let Some(address) = of.address() {
            open.count(address, self.per_address_max)?;
        }
        open.all += usize::from(of.is_socket());
        drop(open);
        if of.is_socket() {
            metrics::gauge!(telemetry::SOCKETS).increment(1);
        }
        Ok(Place { admission: Arc::clone(self), of })
    }

    /// Sockets that are open.
    #[cfg(test)]
    pub fn open(&self) -> usize {
        self.open.lock().all
    }
}

impl Place {
    /// Counts a proxy's socket for its one client, once a header has named it.
    pub fn name(&mut self, address: ClientAddress) -> Result<(), Full> {
        if matches!(self.of, Of::Proxy) {
            self.admission.open.lock().count(address, self.admission.per_address_max)?;
            self.of = Of::Socket(address);
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.of.is_socket() {
            metrics::gauge!(telemetry::SOCKETS).decrement(1);
        }
        let mut open = self.admission.open.lock();
        open.all -= usize::from(self.of.is_socket());
        let Some(address) = self.of.address() else { return };
        if let Some(of_address) = open.by_address.get_mut(&address) {
            *of_address -= 1;
            if *of_address == 0 {
                open.by_address.remove(&address);
            }
        }
        // What a storm needed is not kept.
        if open.by_address.capacity() > 1024 && open.by_address.len() < open.by_address.capacity() / 8 {
            open.by_address.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn address(last: u8) -> ClientAddress {
        IpAddr::from([198, 51, 100, last]).into()
    }

    #[test]
    fn an_address_has_so_many_and_all_have_so_many() {
        let admission = Admission::new(3, 2);
        let mut places = vec![admission.socket(Some(address(1))).unwrap(), admission.socket(Some(address(1))).unwrap()];
        assert_eq!(admission.socket(Some(address(1))).unwrap_err(), Full::Address);
        places.push(admission.socket(Some(address(2))).unwrap());
        assert_eq!(admission.socket(Some(address(3))).unwrap_err(), Full::Gateway);
        assert_eq!(admission.socket(None).unwrap_err(), Full::Gateway);
        drop(places.remove(0));
        let _again = admission.socket(Some(address(1))).unwrap();
        assert_eq!(admission.open(), 3);
    }

    #[test]
    fn behind_a_proxy_clients_are_counted_and_not_the_proxy() {
        let admission = Admission::new(10, 1);
        let sockets: Vec<_> = (0..10).map(|_| admission.socket(None).unwrap()).collect();
        let place = admission.client(address(1)).unwrap();
        assert_eq!(admission.client(address(1)).unwrap_err(), Full::Address);
        let other = admission.client(address(2)).unwrap();
        drop((sockets, place, other));
        let open = admission.open.lock();
        assert_eq!((open.all, open.by_address.len()), (0, 0), "nothing is kept of who is gone");
    }

    #[test]
    fn a_socket_of_a_proxy_counts_for_the_client_that_a_header_names() {
        let admission = Admission::new(10, 1);
        let [mut one, mut more, mut other] = [(); 3].map(|()| admission.socket(None).unwrap());
        one.name(address(1)).unwrap();
        assert_eq!(more.name(address(1)).unwrap_err(), Full::Address);
        other.name(address(2)).unwrap();
        drop(one);
        more.name(address(1)).unwrap();
        assert_eq!(admission.open(), 2);
        drop((more, other));
        let open = admission.open.lock();
        assert_eq!((open.all, open.by_address.len()), (0, 0));
    }
}
