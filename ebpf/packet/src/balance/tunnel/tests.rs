//! Two nodes: one that the client's packets reach, one that the backend is on.

use abi::{Flow4, FlowState4, Member, NodeConfig};
use proptest::prelude::*;

use super::*;
use crate::balance::balance;
use crate::model::Model;
use crate::parse::{self, FragmentId, tcp};
use crate::{V4, V6};

const ENTRY: [u8; 4] = [192, 0, 2, 1];
const OTHER: [u8; 4] = [192, 0, 2, 2];
const CLIENT: [u8; 4] = [198, 51, 100, 7];
const POD: [u8; 4] = [10, 244, 1, 9];
const VIP: [u8; 4] = [203, 0, 113, 80];
const IFINDEX: u32 = 2;

fn mapped(addr: [u8; 4]) -> MemberKey {
    MemberKey {
        prefix_len: 128,
        addr: V4::source_key(0, addr).addr,
    }
}

/// A service at a load balancer's address and at a node port, whose backend is on OTHER; as `own` sees it.
fn node(own: [u8; 4], frontend_flags: u32, backend_flags: u8) -> Model {
    let mut model = Model {
        node: NodeConfig {
            addr4: own,
            snat_port_min: 61_000.into(),
            snat_port_max: 62_000.into(),
            ..NodeConfig::default()
        },
        ..Model::default()
    };
    let here = |is: bool| if is { HERE } else { 0 };
    for (addr, flags) in [
        (ENTRY, NODE | here(own == ENTRY)),
        (OTHER, NODE | here(own == OTHER)),
        (POD, here(own == OTHER)),
    ] {
        model.members.insert(mapped(addr), Member { flags });
    }
    let frontend = Frontend {
        service: 5,
        ring_offset: 10,
        ring_len: 1,
        affinity_secs: 0,
        flags: frontend_flags,
    };
    for (addr, port) in [(VIP, 80_u16), (own, 30_080)] {
        let key = V4::frontend_key(addr, port.into(), 6, Scope::Any);
        let key = zerocopy::IntoBytes::as_bytes(&key).to_vec();
        model.frontends.insert(key, frontend);
    }
    let mut addr = [0; 16];
    addr[..4].copy_from_slice(&POD);
    let backend = Backend {
        addr,
        port: 8080.into(),
        family: abi::family::V4,
        flags: backend_flags,
        service: 5,
    };
    model.slots.insert(10, 10);
    model.backends.insert(10, backend);
    model
}

fn entry() -> Model {
    node(ENTRY, abi::frontends::flags::DSR, backends::flags::TUNNELS)
}

fn headers(tuple: Flow4, tcp_flags: u8) -> Headers<V4> {
    Headers {
        fault: Fault::None,
        l3: 14,
        l4: 34,
        bytes: 40,
        tuple,
        transport: Transport::Tcp,
        tcp_flags,
        ttl: 64,
        fragment: Fragment::Whole,
        fragment_id: FragmentId {
            id: [0; 4],
            proto: 6,
        },
    }
}

fn asked(client: [u8; 4], sport: u16) -> Flow4 {
    Flow4::new(client, VIP, sport.into(), 80.into(), 6)
}

fn given(sport: u16) -> Flow4 {
    Flow4::new(CLIENT, POD, sport.into(), 8080.into(), 6)
}

fn send(model: &Model, tuple: Flow4, flags: u8) -> (Decision, Flow4) {
    let mut to = tuple;
    let mut headers = headers(tuple, flags);
    let decision = balance(model, Place::Device, IFINDEX, &mut headers, &mut to);
    (decision, to)
}

fn get(model: &Model, from: [u8; 4], to: [u8; 4], tuple: Flow4, flags: u8) -> (Decision, Flow4) {
    let mut to = Flow4::new(from, to, 0.into(), 8080.into(), 0);
    let decision = arrive(model, IFINDEX, &mut headers(tuple, flags), &mut to);
    (decision, to)
}

fn flows(model: &Model) -> Vec<FlowState4> {
    model.flows.borrow().values().map(|state| **state).collect()
}

#[test]
fn a_flow_to_another_node_s_backend_keeps_its_source_and_its_backend() {
    let model = entry();
    let tuple = asked(CLIENT, 4000);
    let new = Decision::Rewrite(Kind::TunnelNew);
    let known = Decision::Rewrite(Kind::Tunnel);
    assert_eq!(send(&model, tuple, tcp::SYN), (new, given(4000)));
    // A SYN that is sent again, and what follows, even where the service has another backend by then.
    assert_eq!(send(&model, tuple, tcp::SYN), (known, given(4000)));
    assert_eq!(send(&model, tuple, tcp::ACK), (known, given(4000)));
    let all = flows(&model);
    assert_eq!(all.len(), 1, "the answers do not come this way");
    assert_eq!(all[0].flags, flags::TUNNELLED | flags::GOES_ON);
    // The same port again, once the connection before has ended.
    send(&model, tuple, tcp::FIN | tcp::ACK);
    assert_eq!(send(&model, tuple, tcp::SYN), (new, given(4000)));
}

#[test]
fn what_cannot_go_so_gets_the_node_s_source() {
    use abi::frontends::flags::DSR;
    const TUNNELS: u8 = backends::flags::TUNNELS;
    for (what, frontend, backend, client, sent) in [
        ("dsr", DSR, TUNNELS, CLIENT, Sent::Tunnelled),
        ("snat", 0, TUNNELS, CLIENT, Sent::FromNode),
        (
            "a backend that is on no node",
            DSR,
            0,
            CLIENT,
            Sent::FromNodeInstead,
        ),
        (
            "a client of the cluster",
            DSR,
            TUNNELS,
            OTHER,
            Sent::FromNodeInstead,
        ),
    ] {
        let model = node(ENTRY, frontend, backend);
        let tuple = asked(client, 4000);
        let mut beginning = Beginning {
            service: 5,
            backend: 0,
            now_secs: 0,
            place: Place::Wire,
            sent: Sent::FromClient,
            nested: false,
            opens: true,
            limited: false,
        };
        let key = V4::frontend_key(VIP, 80.into(), 6, Scope::Any);
        let frontend = *Tables::<V4>::frontend(&model, &key).expect("it is there");
        let mut to = tuple;
        crate::balance::choose::<V4, _>(&model, &frontend, &tuple, &mut beginning, &mut to);
        assert_eq!(beginning.sent, sent, "{what}");
        assert_eq!(
            beginning.fell_back(),
            sent == Sent::FromNodeInstead,
            "{what}"
        );
        let source = if sent == Sent::Tunnelled {
            client
        } else {
            ENTRY
        };
        assert_eq!(to.saddr, source, "{what}");
    }
}

#[test]
fn the_other_node_begins_a_flow_to_the_backend_that_it_was_told() {
    let model = node(OTHER, 0, backends::flags::LOCAL);
    let new = Decision::Rewrite(Kind::New);
    for (tuple, sport) in [
        (asked(CLIENT, 4000), 4000),
        // A node port of the node that sent it.
        (
            Flow4::new(CLIENT, ENTRY, 4001.into(), 30_080.into(), 6),
            4001,
        ),
    ] {
        assert_eq!(
            get(&model, ENTRY, POD, tuple, tcp::SYN),
            (new, given(sport))
        );
        let forward = Decision::Rewrite(Kind::Forward);
        assert_eq!(
            get(&model, ENTRY, POD, tuple, tcp::SYN),
            (forward, given(sport))
        );
        assert_eq!(
            get(&model, ENTRY, POD, tuple, tcp::ACK),
            (forward, given(sport))
        );
        let mut answer = headers(given(sport).reversed(), tcp::SYN | tcp::ACK);
        let mut shown = answer.tuple;
        let decision = crate::reply(&model, &mut answer, &mut shown);
        assert_eq!(decision, Decision::Rewrite(Kind::Reply));
        assert_eq!(shown, tuple.reversed(), "the client hears whom it asked");
    }
}

#[test]
fn two_services_that_one_client_port_asks_share_no_answers() {
    let model = node(OTHER, 0, backends::flags::LOCAL);
    let (_, first) = get(&model, ENTRY, POD, asked(CLIENT, 4000), tcp::SYN);
    let other = Flow4::new(CLIENT, ENTRY, 4000.into(), 30_080.into(), 6);
    let (decision, second) = get(&model, ENTRY, POD, other, tcp::SYN);
    assert_eq!(decision, Decision::Rewrite(Kind::New));
    assert_ne!(first, second);
    assert_eq!(second.daddr, POD);
}

#[test]
fn a_connection_stays_where_it_is_whoever_sends_its_packets() {
    let model = node(OTHER, 0, backends::flags::LOCAL);
    // It came by itself, and comes in another packet from now on, for another backend.
    let tuple = asked(CLIENT, 4000);
    assert_eq!(
        send(&model, tuple, tcp::SYN).0,
        Decision::Rewrite(Kind::New)
    );
    let elsewhere = [10, 244, 1, 10];
    model
        .members
        .get(&mapped(POD))
        .expect("the pod's range is known");
    let mut model = model;
    model
        .members
        .insert(mapped(elsewhere), Member { flags: HERE });
    let stays = get(&model, ENTRY, elsewhere, tuple, tcp::ACK);
    assert_eq!(stays, (Decision::Rewrite(Kind::Forward), given(4000)));
    let anew = get(&model, ENTRY, elsewhere, tuple, tcp::SYN);
    assert_eq!(anew.0, Decision::Rewrite(Kind::New));
    assert_eq!(anew.1.daddr, elsewhere);
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let stranger = [192, 0, 2, 77];
    let model = node(OTHER, 0, backends::flags::LOCAL);
    let unknown = Flow4::new(CLIENT, VIP, 4000.into(), 81.into(), 6);
    for (what, from, to, tuple) in [
        ("from who is no node", stranger, POD, asked(CLIENT, 4000)),
        ("from this node itself", OTHER, POD, asked(CLIENT, 4000)),
        ("for who is not here", ENTRY, stranger, asked(CLIENT, 4000)),
        ("for no service", ENTRY, POD, unknown),
        ("the cluster's own", ENTRY, POD, asked(POD, 4000)),
    ] {
        let told = Flow4::new(from, to, 0.into(), 8080.into(), 0);
        let left = get(&model, from, to, tuple, tcp::SYN);
        assert_eq!(left, (Decision::Pass, told), "{what}");
    }
    assert_eq!(flows(&model), []);
}

/// RFC 1071, as it is written there.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn first_word(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// An IPv4 packet with eight octets of UDP.
fn datagram(from: [u8; 4], to: [u8; 4], class: u8) -> Vec<u8> {
    let mut bytes = vec![0x45, class, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
    bytes.extend(from);
    bytes.extend(to);
    let check = sum(&bytes);
    bytes[10..12].copy_from_slice(&check.to_be_bytes());
    bytes.extend([0x0f, 0xa0, 0, 80, 0, 8, 0, 0]);
    bytes
}

fn datagram6(from: [u8; 16], to: [u8; 16], class: u8) -> Vec<u8> {
    let mut bytes = vec![0x60 | class >> 4, class << 4, 0, 0, 0, 8, 17, 64];
    bytes.extend(from);
    bytes.extend(to);
    bytes.extend([0x0f, 0xa0, 0, 80, 0, 8, 0, 0]);
    bytes
}

proptest! {
    #[test]
    fn what_the_outer_header_says_is_read_again(
        node in any::<[u8; 16]>(), pod in any::<[u8; 16]>(), port in 1_u16.., class in any::<u8>(),
    ) {
        let (four, to4) = ([node[0], node[1], node[2], node[3]], [pod[0], pod[1], pod[2], pod[3]]);
        let inner = datagram([1, 2, 3, 4], [5, 6, 7, 8], class);
        let to = Flow4::new([1, 2, 3, 4], to4, 4000.into(), port.into(), 17);
        let outer = header::<V4>(four, &to, 28, first_word(&inner));
        let outer = octets(&outer[..5]);
        prop_assert_eq!(sum(&outer), 0, "a checksum that checks out");
        prop_assert_eq!(outer[1], class & 0xfc);
        let mut frame = vec![0; 12];
        frame.extend([8, 0]);
        frame.extend(&outer);
        frame.extend(&inner);
        let mut headers = V4::headers(frame.as_slice(), 14);
        let mut told = headers.tuple;
        prop_assert!(super::told(frame.as_slice(), &headers, &mut told));
        prop_assert_eq!(told, Flow4::new(four, to4, 0.into(), port.into(), 0));
        prop_assert!(super::inner(frame.as_slice(), &mut headers));
        prop_assert_eq!((headers.l3, headers.l4, headers.bytes), (34, 54, 28));
        prop_assert_eq!(headers.tuple, Flow4::new([1, 2, 3, 4], [5, 6, 7, 8], 4000.into(), 80.into(), 17));

        let inner = datagram6([1; 16], [2; 16], class);
        let to = abi::Flow6::new([1; 16], pod, 4000.into(), port.into(), 17);
        let outer = octets(&header::<V6>(node, &to, 48, first_word(&inner)));
        prop_assert_eq!(outer[0] << 4 | outer[1] >> 4, class & 0xfc);
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd]);
        frame.extend(&outer);
        frame.extend(&inner);
        let mut headers = V6::headers(frame.as_slice(), 14);
        let mut told = headers.tuple;
        prop_assert!(super::told(frame.as_slice(), &headers, &mut told));
        prop_assert_eq!(told, abi::Flow6::new(node, pod, 0.into(), port.into(), 0));
        prop_assert!(super::inner(frame.as_slice(), &mut headers));
        prop_assert_eq!((headers.l3, headers.l4, headers.bytes), (54, 94, 48));
    }
}

#[test]
fn an_error_about_the_outer_packet_becomes_one_about_the_inner() {
    let model = entry();
    let router = [192, 0, 2, 254];
    let mut tuple = asked(CLIENT, 4000);
    tuple.proto = 17;
    let key = V4::frontend_key(VIP, 80.into(), 17, Scope::Any);
    let tcp_key = V4::frontend_key(VIP, 80.into(), 6, Scope::Any);
    let frontend = *Tables::<V4>::frontend(&model, &tcp_key).expect("it is there");
    let mut model = model;
    let key = zerocopy::IntoBytes::as_bytes(&key).to_vec();
    model.frontends.insert(key, frontend);
    let mut udp = headers(tuple, 0);
    udp.transport = Transport::Udp;
    let mut to = tuple;
    balance::<V4, _>(&model, Place::Device, IFINDEX, &mut udp, &mut to);

    let inner = datagram(CLIENT, VIP, 0);
    for (from, kind, code, mtu, told, heard) in [
        (router, 3, 4, 1400_u32, Some(1380), router),
        (router, 3, 4, 300, Some(576), router),
        (router, 11, 0, 0, Some(0), router),
        (POD, 3, 1, 0, Some(0), VIP),
        // It takes nothing off: that is no client's matter.
        (POD, 3, 2, 0, None, VIP),
        (router, 0, 0, 0, None, router),
    ] {
        let outer = header::<V4>(ENTRY, &to, 28, first_word(&inner));
        let mut icmp = vec![kind, code, 0, 0];
        icmp.extend(mtu.to_be_bytes());
        icmp.extend(octets(&outer[..5]));
        icmp.extend(&inner);
        let check = sum(&icmp);
        icmp[2..4].copy_from_slice(&check.to_be_bytes());
        let flow = Flow4::new(from, ENTRY, 0.into(), 0.into(), 0);
        let ip = refuse::header::<V4>(&flow, parse::ICMP, icmp.len() as u32);
        let mut frame = vec![0; 12];
        frame.extend([8, 0]);
        frame.extend(octets(&ip[..5]));
        frame.extend(&icmp);
        let headers = V4::headers(frame.as_slice(), 14);
        let relayed = error::relay(frame.as_slice(), &model, &headers);
        let Some(mtu) = told else {
            assert_eq!(relayed, None, "{kind} {code}");
            continue;
        };
        let relayed = relayed.expect("it is about a flow");
        assert_eq!(relayed.flow.saddr, heard);
        assert_eq!(relayed.flow.daddr, CLIENT);
        assert_eq!(relayed.icmp[1], u32::to_be(mtu));
        let mut packet = octets(&relayed.icmp);
        packet.extend(&inner);
        assert_eq!(sum(&packet), 0, "{kind} {code}");
        let ip = octets(&relayed.ip());
        let len = u16::from_be_bytes([ip[2], ip[3]]);
        assert_eq!(usize::from(len), 20 + packet.len());
    }
}
