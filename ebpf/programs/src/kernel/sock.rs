//! The socket hooks' view of a call, and what they share: choosing a backend, and remembering the way back.

use abi::affinity::client;
use abi::events::kinds;
use abi::protocol::{TCP, UDP};
use abi::{AffinityKey, BackendId, Counter, ReverseSocket, ReverseSocketKey, ServiceId};
use aya_ebpf::bindings::{BPF_ANY, bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::programs::SockAddrContext;
use packet::socket::{self, Sent};
use packet::{Address, Family, Shared as _, Tables, V4, V6};
use zerocopy::network_endian::U16;

use super::count::count;
use super::events::{self, Seen};
use super::load;
use super::maps::REVERSE_SOCKETS;
use super::tables::{Maps, is_host, pod_address};

/// Lets the call go on.
pub(crate) const ALLOW: i32 = 1;
/// Fails the call.
pub(crate) const REJECT: i32 = 0;

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_MPTCP: u32 = 262;

/// What became of a call that names an address.
pub(crate) enum Outcome {
    /// The address is no frontend's.
    NotOurs,
    /// The address is a backend's now.
    Balanced,
    /// The service does not admit this client.
    NotAdmitted,
    /// The service has no endpoint, or no such port.
    NoEndpoint,
    /// The tables are not whole.
    NoBackend,
}

/// How a socket chooses among a service's backends.
pub(crate) enum Choice {
    /// Anew with each connect.
    Random,
    /// The same for as long as the ring is the same.
    Steady,
}

/// A call on a socket.
pub(crate) struct Call {
    ctx: *mut bpf_sock_addr,
}

macro_rules! field {
    ($call:expr, $field:ident) => {{
        // SAFETY: the kernel's context is valid for the whole run; the verifier checks the field and the access
        // size. Volatile, because it admits no access through a computed pointer.
        unsafe { core::ptr::addr_of!((*$call.ctx).$field).read_volatile() }
    }};
    ($call:expr, $field:ident[$index:literal]) => {{
        // SAFETY: as above.
        unsafe { core::ptr::addr_of!((*$call.ctx).$field[$index]).read_volatile() }
    }};
}

macro_rules! set_field {
    ($call:expr, $field:ident, $value:expr) => {{
        // SAFETY: as for reading.
        unsafe { core::ptr::addr_of_mut!((*$call.ctx).$field).write_volatile($value) }
    }};
    ($call:expr, $field:ident[$index:literal], $value:expr) => {{
        // SAFETY: as for reading.
        unsafe { core::ptr::addr_of_mut!((*$call.ctx).$field[$index]).write_volatile($value) }
    }};
}

macro_rules! sock_field {
    ($sk:expr, $field:ident $([$index:literal])?) => {{
        // SAFETY: the kernel's context names a socket that lives for the whole run; the verifier checks the field.
        unsafe { core::ptr::addr_of!((*$sk).$field $([$index])?).read_volatile() }
    }};
}

impl Call {
    #[inline(always)]
    pub(crate) fn new(ctx: &SockAddrContext) -> Self {
        Self { ctx: ctx.sock_addr }
    }

    /// The protocol, where it is one that a Service names.
    #[inline(always)]
    pub(crate) fn proto(&self) -> Option<u8> {
        match (field!(self, type_), field!(self, protocol)) {
            (SOCK_STREAM, protocol) if protocol == u32::from(TCP) || protocol == IPPROTO_MPTCP => {
                Some(TCP)
            }
            (SOCK_DGRAM, protocol) if protocol == u32::from(UDP) => Some(UDP),
            _ => None,
        }
    }

    #[inline(always)]
    pub(crate) fn addr4(&self) -> [u8; 4] {
        field!(self, user_ip4).to_ne_bytes()
    }

    #[inline(always)]
    pub(crate) fn set_addr4(&self, addr: [u8; 4]) {
        set_field!(self, user_ip4, u32::from_ne_bytes(addr));
    }

    #[inline(always)]
    pub(crate) fn addr6(&self) -> [u32; 4] {
        [
            field!(self, user_ip6[0]),
            field!(self, user_ip6[1]),
            field!(self, user_ip6[2]),
            field!(self, user_ip6[3]),
        ]
    }

    #[inline(always)]
    pub(crate) fn set_addr6(&self, words: [u32; 4]) {
        set_field!(self, user_ip6[0], words[0]);
        set_field!(self, user_ip6[1], words[1]);
        set_field!(self, user_ip6[2], words[2]);
        set_field!(self, user_ip6[3], words[3]);
    }

    /// The kernel keeps the port's two bytes, in network order, at the start of a 32-bit field.
    #[inline(always)]
    pub(crate) fn port(&self) -> U16 {
        let [high, low, _, _] = field!(self, user_port).to_ne_bytes();
        U16::from_bytes([high, low])
    }

    #[inline(always)]
    pub(crate) fn set_port(&self, port: U16) {
        let [high, low] = port.to_bytes();
        set_field!(self, user_port, u32::from_ne_bytes([high, low, 0, 0]));
    }

    /// Whom the socket is connected to, if it is.
    #[inline(always)]
    fn peer<A>(&self, addr: impl FnOnce(*mut bpf_sock) -> A) -> Option<(A, U16)> {
        // SAFETY: as for the other fields.
        let sk = unsafe { core::ptr::addr_of!((*self.ctx).__bindgen_anon_1.sk).read_volatile() };
        if sk.is_null() {
            return None;
        }
        let port = sock_field!(sk, dst_port);
        (port != 0).then(|| (addr(sk), U16::from_bytes(port.to_ne_bytes())))
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the helper takes this hook's context.
        unsafe { bpf_get_socket_cookie(self.ctx.cast()) }
    }

    #[inline(always)]
    fn netns_cookie(&self) -> u64 {
        // SAFETY: the helper takes this hook's context.
        unsafe { bpf_get_netns_cookie(self.ctx.cast()) }
    }

    /// Tells whoever watches.
    #[inline(always)]
    fn tell(&self, kind: u32, counter: Counter, seen: impl FnOnce() -> Seen) {
        if events::watched() {
            events::tell_call(&seen(), self.netns_cookie(), events::what(kind, counter));
        }
    }

    /// The client's address is not chosen yet, but one pod is one network namespace: it is the pod's, as the pod's link
    /// would see it. Where the pod is not known the namespace's cookie stands for the client.
    #[inline(always)]
    fn client<F: Family>(&self, service: u32) -> AffinityKey {
        let cookie = self.netns_cookie();
        if let Some(addr) = pod_address::<F>(cookie) {
            return AffinityKey {
                client: addr,
                service,
                client_kind: client::ADDRESS,
            };
        }
        let [a, b, c, d, e, f, g, h] = cookie.to_ne_bytes();
        AffinityKey {
            client: [a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0],
            service,
            client_kind: client::NETNS,
        }
    }
}

/// Sends a call of an IPv4 socket to a backend.
#[inline(always)]
pub(crate) fn balance4(call: &Call, choice: Choice) -> Outcome {
    balance::<V4>(call, call.addr4().reached(), &choice, |addr| {
        call.set_addr4(addr)
    })
}

/// Sends a call of an IPv6 socket to a backend: an IPv4 one where the address is IPv4-mapped.
#[inline(always)]
pub(crate) fn balance6(call: &Call, choice: Choice) -> Outcome {
    let addr: [u8; 16] = zerocopy::transmute!(call.addr6());
    let words = addr.reached().words();
    match socket::mapped(words) {
        Some(addr) => balance::<V4>(call, addr.reached(), &choice, |addr| {
            call.set_addr6(socket::map(addr))
        }),
        None => balance::<V6>(call, zerocopy::transmute!(words), &choice, |addr| {
            call.set_addr6(zerocopy::transmute!(addr));
        }),
    }
}

/// On a socket that is connected through a Service, a datagram that names its peer goes the way of the others: whether
/// this one was seen to. A function of its own, so that the verifier walks what follows it once.
#[inline(never)]
pub(crate) fn stays4(call: &Call) -> bool {
    let peer = call.peer(|sk| sock_field!(sk, dst_ip4).to_ne_bytes());
    stays::<V4>(call, call.addr4().reached(), peer, |addr| {
        call.set_addr4(addr)
    })
}

/// As [`stays4`], of an IPv6 socket. What an IPv4-mapped address names, the kernel sends as an IPv4 socket's.
#[inline(never)]
pub(crate) fn stays6(call: &Call) -> bool {
    let peer = call.peer(|sk| {
        zerocopy::transmute!([
            sock_field!(sk, dst_ip6[0]),
            sock_field!(sk, dst_ip6[1]),
            sock_field!(sk, dst_ip6[2]),
            sock_field!(sk, dst_ip6[3]),
        ])
    });
    let addr: [u8; 16] = zerocopy::transmute!(call.addr6());
    stays::<V6>(call, addr.reached(), peer, |addr| {
        call.set_addr6(zerocopy::transmute!(addr));
    })
}

#[inline(always)]
fn stays<F: Family>(
    call: &Call,
    addr: F::Address,
    peer: Option<(F::Address, U16)>,
    set_addr: impl FnOnce(F::Address),
) -> bool {
    let Some((to_addr, to_port)) = peer else {
        return false;
    };
    let key = reverse_key::<F>(call, to_addr, to_port);
    // SAFETY: the entry is read before anything else touches the map.
    let Some(frontend) = (unsafe { REVERSE_SOCKETS.get(&key) }) else {
        return false;
    };
    let port = call.port();
    if (to_addr, to_port) == (addr, port) {
        return true;
    }
    let is_its = frontend.port == port && frontend.addr == addr.padded();
    if is_its {
        set_addr(to_addr);
        call.set_port(to_port);
    }
    is_its
}

/// Gives an address that the kernel is about to show the form that the socket's owner asked for.
#[inline(always)]
pub(crate) fn restore4(call: &Call) {
    restore::<V4>(call, call.addr4(), |addr| call.set_addr4(addr));
}

/// As [`restore4`], for IPv6 sockets.
#[inline(always)]
pub(crate) fn restore6(call: &Call) {
    let words = call.addr6();
    match socket::mapped(words) {
        Some(addr) => restore::<V4>(call, addr, |addr| call.set_addr6(socket::map(addr))),
        None => restore::<V6>(call, zerocopy::transmute!(words), |addr| {
            call.set_addr6(zerocopy::transmute!(addr));
        }),
    }
}

/// Fails a call that was refused, counts it and tells of it. Its address is the one that was asked for still.
#[inline(always)]
pub(crate) fn reject(call: &Call, asked: fn(&Call) -> Seen, kind: u32, counter: Counter) -> i32 {
    count(counter, 0);
    call.tell(kind, counter, || asked(call));
    refuse();
    REJECT
}

/// What a call of an IPv4 socket names.
#[inline(always)]
pub(crate) fn asked4(call: &Call) -> Seen {
    asked(call, abi::family::V4, call.addr4().padded())
}

/// As [`asked4`], of an IPv6 socket.
#[inline(always)]
pub(crate) fn asked6(call: &Call) -> Seen {
    let words = call.addr6();
    match socket::mapped(words) {
        Some(addr) => asked(call, abi::family::V4, addr.padded()),
        None => asked(call, abi::family::V6, zerocopy::transmute!(words)),
    }
}

#[inline(always)]
fn asked(call: &Call, family: u8, addr: [u8; 16]) -> Seen {
    let port = call.port();
    Seen {
        addr,
        to: addr,
        port,
        to_port: port,
        family,
        proto: call.proto().unwrap_or(0),
        _pad: [0; 2],
    }
}

/// Makes the call fail with ECONNREFUSED; otherwise the caller would see EPERM.
#[inline(always)]
fn refuse() {
    const ECONNREFUSED: i32 = 111;
    // SAFETY: the helper takes a number. Kernel 5.18 (b44123b4a3dc).
    let _ = unsafe { bpf_set_retval(-ECONNREFUSED) };
}

#[inline(always)]
fn balance<F: Family>(
    call: &Call,
    addr: F::Address,
    choice: &Choice,
    set_addr: impl FnOnce(F::Address),
) -> Outcome
where
    Maps: Tables<F>,
{
    let Some(proto) = call.proto() else {
        return Outcome::NotOurs;
    };
    let port = call.port();
    let caller = By { call, choice };
    let (to_addr, to_port) = match socket::decide::<F, _>(&Maps, &caller, proto, addr, port) {
        Sent::NotOurs => {
            // It is the peer itself now, not one that stands behind a Service.
            forget(&reverse_key::<F>(call, addr, port));
            return Outcome::NotOurs;
        }
        Sent::To(_, to_addr, to_port) => (to_addr, to_port),
        Sent::NotAdmitted(_) => return Outcome::NotAdmitted,
        Sent::NoEndpoint(_) | Sent::NoPort => return Outcome::NoEndpoint,
        Sent::NoBackend(_) => return Outcome::NoBackend,
    };
    let is_new = remember(
        &reverse_key::<F>(call, to_addr, to_port),
        &ReverseSocket {
            addr: addr.padded(),
            port,
            _pad: [0; 2],
        },
    );
    set_addr(to_addr);
    call.set_port(to_port);
    // Of datagrams that name their peer each, the first one begins the flow.
    let begun = match choice {
        Choice::Random => Counter::SocketConnect,
        Choice::Steady => Counter::SocketSend,
    };
    if is_new || matches!(choice, Choice::Random) {
        call.tell(kinds::NEW, begun, || Seen {
            addr: addr.padded(),
            to: to_addr.padded(),
            port,
            to_port,
            family: F::NUMBER,
            proto,
            _pad: [0; 2],
        });
    }
    Outcome::Balanced
}

/// Who makes a call, and how it chooses.
struct By<'a> {
    call: &'a Call,
    choice: &'a Choice,
}

impl socket::Caller for By<'_> {
    #[inline(always)]
    fn is_host(&self) -> bool {
        is_host(self.call.netns_cookie())
    }

    #[inline(always)]
    fn client<F: Family>(&self, service: ServiceId) -> AffinityKey {
        self.call.client::<F>(service)
    }

    #[inline(always)]
    fn random<F: Family>(&self, addr: F::Address, port: U16) -> u32 {
        match self.choice {
            Choice::Random => Maps.random(),
            Choice::Steady => socket::steady(self.call.cookie(), addr.sum(), port.get()),
        }
    }

    #[inline(always)]
    fn stays(&self) -> bool {
        matches!(self.choice, Choice::Steady)
    }

    #[inline(always)]
    fn counted(&self, backend: BackendId, service: ServiceId) {
        load::connect(self.call.ctx, backend, service);
    }
}

/// A socket and whom it sends to.
#[inline(always)]
fn reverse_key<F: Family>(call: &Call, addr: F::Address, port: U16) -> ReverseSocketKey {
    ReverseSocketKey {
        cookie: call.cookie(),
        addr: addr.padded(),
        port,
        family: F::NUMBER,
        _pad: [0; 5],
    }
}

/// Takes the way back away, where there is one. Looked for first: most calls that are no Service's leave nothing, and a
/// removal takes a lock.
#[inline(always)]
fn forget(key: &ReverseSocketKey) {
    // SAFETY: nothing of the entry is read.
    if unsafe { REVERSE_SOCKETS.get(key) }.is_some() {
        let _ = REVERSE_SOCKETS.remove(key);
    }
}

/// Writes the way back unless it is there already, and says whether it was not: a socket that sends many datagrams to one service pays for a
/// look-up, not for an update. When the table refuses, answers show the backend's address.
#[inline(always)]
fn remember(key: &ReverseSocketKey, value: &ReverseSocket) -> bool {
    // SAFETY: the entry is compared before anything else touches the map.
    if let Some(known) = unsafe { REVERSE_SOCKETS.get(key) }
        && known == value
    {
        return false;
    }
    let _ = REVERSE_SOCKETS.insert(key, value, u64::from(BPF_ANY));
    true
}

#[inline(always)]
fn restore<F: Family>(call: &Call, addr: F::Address, set_addr: impl FnOnce(F::Address)) {
    if call.proto().is_none() {
        return;
    }
    let key = reverse_key::<F>(call, addr, call.port());
    // SAFETY: the entry is read before anything else touches the map.
    if let Some(frontend) = unsafe { REVERSE_SOCKETS.get(key) } {
        set_addr(F::Address::from_padded(&frontend.addr));
        call.set_port(frontend.port);
    }
}
