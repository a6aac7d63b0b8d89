//! UDP sockets that take and give many datagrams with one system call, each with the address that it came to.
//!
//! What a client sends to one of several addresses must be answered from that address. The kernel tells and takes
//! it in a control message (`IP_PKTINFO`, `IPV6_PKTINFO`), which no safe wrapper carries for each datagram of a
//! batch; hence the two system calls here.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Datagrams that one system call takes or gives.
pub const BATCH: usize = 64;

/// Datagrams that are asked for at least.
const BATCH_MIN: usize = 4;

/// Octets of a datagram that is received whole; what is longer counts as cut off.
pub const RECEIVE_MAX: usize = 4096;

/// Octets of a datagram that is sent from a batch.
pub const SEND_MAX: usize = 4096;

/// A bound UDP socket. Several may be bound to one address; the kernel spreads clients over them.
#[derive(Debug)]
pub struct Datagrams {
    socket: OwnedFd,
    local: SocketAddr,
}

/// Room for a batch of datagrams and for what is sent in return.
pub struct Batch {
    slots: Box<[Slot]>,
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    received: usize,
    /// How many datagrams are asked for next: each costs something to ask for, also when it does not come.
    wanted: usize,
    /// The only address that the socket is bound to, if it is bound to one.
    here: Option<IpAddr>,
}

/// A datagram and its answer.
#[derive(Clone)]
struct Slot {
    peer: libc::sockaddr_storage,
    control: Control,
    received: usize,
    cut_off: bool,
    sent: usize,
    request: [u8; RECEIVE_MAX],
    answer: [u8; SEND_MAX],
}

/// One control message that tells a local address: `IPV6_PKTINFO` is the larger with 16 + 20 octets.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control {
    octets: [u8; 64],
    length: usize,
}

impl Datagrams {
    /// Binds a socket. The unspecified IPv6 address means every address of both families, also on hosts without
    /// IPv6. A receive ends with nothing after `patience`.
    ///
    /// # Errors
    /// When the socket cannot be made or bound.
    pub fn bind(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        match Self::bind_family(address, patience) {
            Err(error) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                let no_v6 = [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL];
                if !error.raw_os_error().is_some_and(|e| no_v6.contains(&e)) {
                    return Err(error);
                }
                let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
                Self::bind_family(v4, patience)
            }
            bound => bound,
        }
    }

    fn bind_family(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(patience))?;
        // The kernel grants what net.core.rmem_max allows; less is no reason to fail.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
        // Where there is one address only, the kernel need not tell it with each datagram.
        let any = address.ip().is_unspecified();
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, !any)?;
            if any {
                switch_on(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
            }
        } else if any {
            switch_on(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
        }
        rustix::net::bind(&socket, &address)?;
        let local = rustix::net::getsockname(&socket)?
            .try_into()
            .map_err(|_| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        Ok(Datagrams { socket, local })
    }

    /// The address that was bound, with its port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Waits for a datagram, then takes those that are there: as many as [`BATCH`] when the calls before found
    /// many. Gives how many; none when patience or a signal ended the waiting.
    ///
    /// # Errors
    /// When the kernel refuses. Errors that datagrams sent before brought back are passed over.
    pub fn receive(&self, batch: &mut Batch) -> io::Result<usize> {
        batch.received = 0;
        batch.here = Some(self.local.ip()).filter(|ip| !ip.is_unspecified());
        let wanted = batch.wanted.min(batch.slots.len());
        for at in 0..wanted {
            let slot = &mut batch.slots[at];
            slot.sent = 0;
            batch.vectors[at] = vector(slot.request.as_mut_ptr(), RECEIVE_MAX);
            let mut header = empty();
            header.msg_name = ptr::from_mut(&mut slot.peer).cast();
            header.msg_namelen = size::<libc::sockaddr_storage>();
            header.msg_iov = &raw mut batch.vectors[at];
            header.msg_iovlen = 1;
            header.msg_control = slot.control.octets.as_mut_ptr().cast();
            header.msg_controllen = slot.control.octets.len() as _;
            batch.headers[at] = libc::mmsghdr {
                msg_hdr: header,
                msg_len: 0,
            };
        }
        let count = u32::try_from(wanted).unwrap_or(u32::MAX);
        // SAFETY: the first `count` of `headers` were filled above, each pointing into `slots` and `vectors`, which are borrowed
        // exclusively and neither moved nor freed until the call returns; lengths are those of the arrays.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                batch.headers.as_mut_ptr(),
                count,
                libc::MSG_WAITFORONE,
                ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(
                    libc::EAGAIN
                    | libc::EINTR
                    | libc::ECONNREFUSED
                    | libc::EHOSTUNREACH
                    | libc::ENETUNREACH,
                ) => Ok(0),
                _ => Err(error),
            };
        };
        for (slot, header) in batch.slots.iter_mut().zip(&batch.headers).take(received) {
            slot.received = (header.msg_len as usize).min(RECEIVE_MAX);
            slot.cut_off = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            #[allow(clippy::unnecessary_cast, reason = "musl's has 32 bits")]
            let length = header.msg_hdr.msg_controllen as usize;
            slot.control.length = length.min(64);
        }
        batch.received = received;
        batch.wanted = match received < wanted {
            true => received.saturating_mul(2).clamp(BATCH_MIN, BATCH),
            false => BATCH,
        };
        Ok(received)
    }

    /// Has a receive end at once when nothing is there.
    pub fn hurry(&self) {
        // A socket that keeps its patience only takes longer.
        let _ = sockopt::set_socket_timeout(
            &self.socket,
            sockopt::Timeout::Recv,
            Some(Duration::from_micros(1)),
        );
    }

    /// Sends what the batch holds in return, each from the address that its request came to. Gives how many
    /// could not be sent.
    pub fn send(&self, batch: &mut Batch) -> usize {
        let mut queued = 0;
        for at in 0..batch.received {
            let slot = &mut batch.slots[at];
            if slot.sent == 0 {
                continue;
            }
            slot.control.answer();
            batch.vectors[queued] = vector(slot.answer.as_mut_ptr(), slot.sent.min(SEND_MAX));
            let mut header = empty();
            header.msg_name = ptr::from_mut(&mut slot.peer).cast();
            header.msg_namelen = length_of(&slot.peer);
            header.msg_iov = &raw mut batch.vectors[queued];
            header.msg_iovlen = 1;
            if slot.control.length > 0 {
                header.msg_control = slot.control.octets.as_mut_ptr().cast();
                header.msg_controllen = slot.control.length as _;
            }
            batch.headers[queued] = libc::mmsghdr {
                msg_hdr: header,
                msg_len: 0,
            };
            queued += 1;
        }
        let (mut begin, mut lost) = (0, 0);
        while begin < queued {
            let rest = u32::try_from(queued - begin).unwrap_or(0);
            // SAFETY: the `rest` headers from `begin` on were filled above and point into `slots` and `vectors`,
            // which are borrowed exclusively until the call returns; lengths are at most those of the arrays.
            let sent = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    batch.headers[begin..].as_mut_ptr(),
                    rest,
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(sent) {
                Ok(sent) if sent > 0 => begin += sent,
                _ => {
                    // The first of them could not be sent: the others still may.
                    begin += 1;
                    lost += 1;
                }
            }
        }
        batch.received = 0;
        lost
    }

    /// Sends one datagram to `peer` from the address `local` of this host.
    ///
    /// # Errors
    /// When it cannot be sent at once.
    pub fn send_to(&self, octets: &[u8], peer: SocketAddr, local: IpAddr) -> io::Result<()> {
        let mut name = address(peer, self.local.is_ipv6());
        let mut control = match self.local.ip().is_unspecified() {
            true => Control::from(local, self.local.is_ipv6()),
            false => Control::none(),
        };
        let mut vector = vector(octets.as_ptr().cast_mut(), octets.len());
        let mut header = empty();
        header.msg_name = ptr::from_mut(&mut name).cast();
        header.msg_namelen = length_of(&name);
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        if control.length > 0 {
            header.msg_control = control.octets.as_mut_ptr().cast();
            header.msg_controllen = control.length as _;
        }
        // SAFETY: the header points at locals and at `octets`, all alive until the call returns, with their
        // lengths; the kernel only reads what a message to be sent points at.
        let sent = unsafe {
            libc::sendmsg(
                self.socket.as_raw_fd(),
                &raw const header,
                libc::MSG_DONTWAIT,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Octets that the kernel may keep for a socket while its thread is busy: some thousands of requests.
const RECEIVE_BUFFER: usize = 4 << 20;

impl Batch {
    /// Room for [`BATCH`] datagrams.
    #[must_use]
    pub fn new() -> Self {
        let slot = Slot {
            peer: none(),
            control: Control::none(),
            received: 0,
            cut_off: false,
            sent: 0,
            request: [0; RECEIVE_MAX],
            answer: [0; SEND_MAX],
        };
        let header = libc::mmsghdr {
            msg_hdr: empty(),
            msg_len: 0,
        };
        Batch {
            slots: vec![slot; BATCH].into(),
            headers: vec![header; BATCH].into(),
            vectors: vec![vector(ptr::null_mut(), 0); BATCH].into(),
            received: 0,
            wanted: BATCH_MIN,
            here: None,
        }
    }

    /// A datagram that was received, and room for its answer. `None` when there was none, or when it was cut
    /// off.
    pub fn exchange(&mut self, at: usize) -> Option<(&[u8], &mut [u8])> {
        let slot = self.slots[..self.received].get_mut(at)?;
        (!slot.cut_off).then_some((&slot.request[..slot.received], &mut slot.answer[..]))
    }

    /// Who sent it.
    #[must_use]
    pub fn peer(&self, at: usize) -> Option<SocketAddr> {
        parse(&self.slots.get(at)?.peer)
    }

    /// The address of this host that it came to.
    #[must_use]
    pub fn local(&self, at: usize) -> Option<IpAddr> {
        self.slots.get(at)?.control.address().or(self.here)
    }

    /// Has the first `length` octets of the answer sent with the batch.
    pub fn answer(&mut self, at: usize, length: usize) {
        if let Some(slot) = self.slots.get_mut(at) {
            slot.sent = length;
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Batch");
        out.field("received", &self.received)
            .finish_non_exhaustive()
    }
}

/// Octets of a control message's head, which is a multiple of eight already.
const HEAD: usize = mem::size_of::<libc::cmsghdr>();

impl Control {
    const fn none() -> Self {
        Control {
            octets: [0; 64],
            length: 0,
        }
    }

    /// Tells the kernel to send from `local`.
    fn from(local: IpAddr, v6: bool) -> Self {
        let mut control = Control::none();
        if local.is_unspecified() {
            return control;
        }
        let (level, kind, data): (i32, i32, usize) = match v6 {
            true => (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 20),
            false => (libc::IPPROTO_IP, libc::IP_PKTINFO, 12),
        };
        let length: usize = HEAD + data;
        control.octets[..8].copy_from_slice(&length.to_ne_bytes());
        control.octets[8..12].copy_from_slice(&level.to_ne_bytes());
        control.octets[12..16].copy_from_slice(&kind.to_ne_bytes());
        match (v6, local) {
            (true, IpAddr::V6(addr)) => {
                control.octets[HEAD..HEAD + 16].copy_from_slice(&addr.octets());
            }
            (true, IpAddr::V4(addr)) => {
                let mapped = addr.to_ipv6_mapped().octets();
                control.octets[HEAD..HEAD + 16].copy_from_slice(&mapped);
            }
            (false, IpAddr::V4(addr)) => {
                control.octets[HEAD + 4..HEAD + 8].copy_from_slice(&addr.octets());
            }
            (false, IpAddr::V6(_)) => return Control::none(),
        }
        control.length = HEAD + data.next_multiple_of(8);
        control
    }

    /// Level and kind, when a whole message is there.
    fn kind(&self) -> Option<(i32, i32)> {
        let number = |at: usize| {
            let octets = self.octets.get(at..at + 4)?;
            Some(i32::from_ne_bytes(octets.try_into().ok()?))
        };
        (self.length >= HEAD + 12).then_some((number(8)?, number(12)?))
    }

    /// The local address that a received message tells.
    fn address(&self) -> Option<IpAddr> {
        match self.kind()? {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let octets: [u8; 4] = self.octets[HEAD + 8..HEAD + 12].try_into().ok()?;
                Some(Ipv4Addr::from(octets).into())
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let octets: [u8; 16] = self.octets[HEAD..HEAD + 16].try_into().ok()?;
                Some(Ipv6Addr::from(octets).to_canonical())
            }
            _ => None,
        }
    }

    /// Makes of a received message one to send: the interface is left to routing, but for addresses that mean
    /// nothing without it.
    fn answer(&mut self) {
        match self.kind() {
            Some((libc::IPPROTO_IP, libc::IP_PKTINFO)) => self.octets[HEAD..HEAD + 4].fill(0),
            Some((libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)) => {
                let link_local = self.octets[HEAD] == 0xfe && self.octets[HEAD + 1] & 0xc0 == 0x80;
                if !link_local {
                    self.octets[HEAD + 16..HEAD + 20].fill(0);
                }
            }
            _ => self.length = 0,
        }
    }
}

fn switch_on(socket: &OwnedFd, level: i32, option: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value is a local `int`, alive until the call returns, and its size is told.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&on).cast(),
            size::<libc::c_int>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn vector(base: *mut u8, length: usize) -> libc::iovec {
    libc::iovec {
        iov_base: base.cast(),
        iov_len: length,
    }
}

fn empty() -> libc::msghdr {
    // SAFETY: null pointers and zero lengths are a valid `msghdr`.
    unsafe { mem::zeroed() }
}

fn none() -> libc::sockaddr_storage {
    // SAFETY: integers and arrays of them: all zero is a valid `sockaddr_storage`, of family AF_UNSPEC.
    unsafe { mem::zeroed() }
}

fn size<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(mem::size_of::<T>()).unwrap_or(libc::socklen_t::MAX)
}

fn length_of(storage: &libc::sockaddr_storage) -> libc::socklen_t {
    match i32::from(storage.ss_family) {
        libc::AF_INET => size::<libc::sockaddr_in>(),
        _ => size::<libc::sockaddr_in6>(),
    }
}

fn parse(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: a `sockaddr_storage` is as large and as aligned as every address, and its family says that
            // it holds a `sockaddr_in`, which is integers alone.
            let v4 = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let addr = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(addr.into(), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for a `sockaddr_in6`.
            let v6 = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let addr = Ipv6Addr::from(v6.sin6_addr.s6_addr).to_canonical();
            let port = u16::from_be(v6.sin6_port);
            Some(match addr {
                IpAddr::V4(_) => SocketAddr::new(addr, port),
                IpAddr::V6(addr) => {
                    std::net::SocketAddrV6::new(addr, port, 0, v6.sin6_scope_id).into()
                }
            })
        }
        _ => None,
    }
}

/// An address as the kernel takes it; of an IPv6 socket's family when `v6`.
fn address(peer: SocketAddr, v6: bool) -> libc::sockaddr_storage {
    let mut storage = none();
    let (addr, scope) = match (peer, v6) {
        (SocketAddr::V4(peer), false) => {
            // SAFETY: a `sockaddr_storage` is as large and as aligned as every address.
            let v4 = unsafe { &mut *ptr::from_mut(&mut storage).cast::<libc::sockaddr_in>() };
            v4.sin_family = libc::AF_INET as libc::sa_family_t;
            v4.sin_port = peer.port().to_be();
            v4.sin_addr.s_addr = u32::from(*peer.ip()).to_be();
            return storage;
        }
        (SocketAddr::V4(peer), true) => (peer.ip().to_ipv6_mapped(), 0),
        (SocketAddr::V6(peer), _) => (*peer.ip(), peer.scope_id()),
    };
    // SAFETY: as above.
    let to = unsafe { &mut *ptr::from_mut(&mut storage).cast::<libc::sockaddr_in6>() };
    to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    to.sin6_port = peer.port().to_be();
    to.sin6_addr.s6_addr = addr.octets();
    to.sin6_scope_id = scope;
    storage
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// On an unspecified socket every answer comes from the address that was asked, in both families.
    #[test]
    fn answers_come_from_where_questions_went() {
        let bound = ["0.0.0.0:0", "[::]:0", "[::1]:0", "127.0.0.1:0"];
        for bound in bound {
            let server = Datagrams::bind(bound.parse().unwrap(), PATIENCE).unwrap();
            let v6 = server.local_addr().is_ipv6();
            let asked: &[&str] = match bound {
                "0.0.0.0:0" => &["127.0.0.1", "127.0.0.2", "127.9.9.9"],
                "[::]:0" if v6 => &["127.0.0.2", "::1"],
                "[::]:0" => &["127.0.0.2"],
                "[::1]:0" => &["::1"],
                _ => &["127.0.0.1"],
            };
            for ip in asked {
                let ip: IpAddr = ip.parse().unwrap();
                let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let client = UdpSocket::bind(any).unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                // Connected: an answer from elsewhere is not received.
                client.connect((ip, server.local_addr().port())).unwrap();
                client.send(b"one").unwrap();
                client.send(b"two").unwrap();
                let mut batch = Batch::new();
                let mut seen = 0;
                while seen < 2 {
                    let count = server.receive(&mut batch).unwrap();
                    for at in 0..count {
                        assert_eq!(batch.local(at), Some(ip), "{bound}");
                        let peer = batch.peer(at).unwrap();
                        assert_eq!(peer.port(), client.local_addr().unwrap().port());
                        let (request, answer) = batch.exchange(at).unwrap();
                        answer[..3].copy_from_slice(request);
                        batch.answer(at, 3);
                        server.send_to(b"late", peer, ip).unwrap();
                    }
                    assert_eq!(server.send(&mut batch), 0);
                    seen += count;
                }
                let mut heard = Vec::new();
                for _ in 0..4 {
                    let mut octets = [0; 16];
                    let length = client.recv(&mut octets).unwrap();
                    heard.push(String::from_utf8_lossy(&octets[..length]).into_owned());
                }
                heard.sort();
                assert_eq!(heard, ["late", "late", "one", "two"], "{bound} {ip}");
            }
        }
    }

    #[test]
    fn too_long_a_datagram_is_told_apart_and_patience_ends() {
        let local = "127.0.0.1:0".parse().unwrap();
        let server = Datagrams::bind(local, Duration::from_millis(20)).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut batch = Batch::new();
        assert_eq!(server.receive(&mut batch).unwrap(), 0);
        client
            .send_to(&[0; RECEIVE_MAX + 1], server.local_addr())
            .unwrap();
        assert_eq!(server.receive(&mut batch).unwrap(), 1);
        assert!(batch.exchange(0).is_none());
        assert_eq!(server.send(&mut batch), 0);
    }

    #[test]
    fn several_sockets_share_an_address() {
        let local = "127.0.0.1:0".parse().unwrap();
        let first = Datagrams::bind(local, PATIENCE).unwrap();
        assert!(Datagrams::bind(first.local_addr(), PATIENCE).is_ok());
    }
}
