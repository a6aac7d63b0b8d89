//! Types of records: their names (IANA), and how master files write the data of those that this server passes through
//! without a look into them.

use hickory_proto::rr::{DNSClass, RecordType};

/// A part of a record's data. Those that take all that is left stand last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Name,
    /// Names, as many as are left, also none.
    Names,
    U8,
    U16,
    U32,
    /// A time in seconds.
    Seconds,
    /// A moment.
    Date,
    /// A number or a name of an algorithm of DNSSEC.
    Algorithm,
    /// A number or a name of a kind of certificate (RFC 4398).
    Certificate,
    /// The type of a record.
    Kind,
    /// How a parent is told of changes (RFC 9859).
    Scheme,
    /// A character string, with its length before it.
    Text,
    /// One that may be left out.
    TextIfAny,
    /// Character strings, at least one.
    Texts,
    /// A text without its length (RFC 7553).
    Plain,
    /// Hexadecimal digits, as many words as are left.
    Hexadecimal,
    /// As `Hexadecimal`, after `0x` and with dots anywhere (RFC 1706).
    Nsap,
    Base64,
    /// As `Base64`, and none is needed.
    Base64IfAny,
    /// Hexadecimal digits with their length before them; `-` is none (RFC 5155).
    Salt,
    /// Base 32 with its length before it (RFC 5155).
    Hash,
    /// Types (RFC 4034 section 4.1.2).
    Bitmap,
    V4,
    /// So many octets in hexadecimal, with hyphens between them (RFC 7043).
    Hyphens(usize),
    /// Four groups of hexadecimal digits (RFC 6742).
    Locator,
    /// RFC 1876.
    Location,
    /// RFC 3123.
    Prefixes,
    /// RFC 4025 from the gateway's kind on.
    Gateway,
    /// RFC 8777 from the discovery bit on.
    Relay,
    /// RFC 8005 but for the names at its end.
    Host,
    /// RFC 9460 after the target.
    Parameters,
}

use Field::{
    Algorithm, Base64, Base64IfAny, Bitmap, Certificate, Date, Gateway, Hash, Hexadecimal, Host,
    Hyphens, Kind, Location, Locator, Name, Names, Nsap, Parameters, Plain, Prefixes, Relay, Salt,
    Scheme, Seconds, Text, TextIfAny, Texts, U8, U16, U32, V4,
};

const KEY: &[Field] = &[U16, U8, Algorithm, Base64];
const DIGEST: &[Field] = &[U16, Algorithm, U8, Hexadecimal];
const SIGNATURE: &[Field] = &[Kind, Algorithm, U8, Seconds, Date, Date, U16, Name, Base64];
const SERVICE: &[Field] = &[U16, Name, Parameters];

/// Number, name, data. Without data: it has no text, or is read elsewhere.
const TYPES: &[(u16, &str, &[Field])] = &[
    (0, "None", &[]),
    (3, "MD", &[Name]),
    (4, "MF", &[Name]),
    (7, "MB", &[Name]),
    (8, "MG", &[Name]),
    (9, "MR", &[Name]),
    (10, "NULL", &[]),
    (11, "WKS", &[]),
    (14, "MINFO", &[Name, Name]),
    (17, "RP", &[Name, Name]),
    (18, "AFSDB", &[U16, Name]),
    (19, "X25", &[Text]),
    (20, "ISDN", &[Text, TextIfAny]),
    (21, "RT", &[U16, Name]),
    (22, "NSAP", &[Nsap]),
    (23, "NSAP-PTR", &[Name]),
    (24, "SIG", SIGNATURE),
    (25, "KEY", KEY),
    (26, "PX", &[U16, Name, Name]),
    (27, "GPOS", &[Text, Text, Text]),
    (29, "LOC", &[Location]),
    (30, "NXT", &[]),
    (31, "EID", &[Hexadecimal]),
    (32, "NIMLOC", &[Hexadecimal]),
    (34, "ATMA", &[]),
    (36, "KX", &[U16, Name]),
    (37, "CERT", &[Certificate, U16, Algorithm, Base64]),
    (38, "A6", &[]),
    (39, "DNAME", &[Name]),
    (42, "APL", &[Prefixes]),
    (43, "DS", DIGEST),
    (45, "IPSECKEY", &[U8, Gateway, Base64IfAny]),
    (46, "RRSIG", SIGNATURE),
    (47, "NSEC", &[Name, Bitmap]),
    (48, "DNSKEY", KEY),
    (49, "DHCID", &[Base64]),
    (50, "NSEC3", &[U8, U8, U16, Salt, Hash, Bitmap]),
    (51, "NSEC3PARAM", &[U8, U8, U16, Salt]),
    (55, "HIP", &[Host, Names]),
    (56, "NINFO", &[Texts]),
    (57, "RKEY", KEY),
    (58, "TALINK", &[Name, Name]),
    (59, "CDS", DIGEST),
    (60, "CDNSKEY", KEY),
    (63, "ZONEMD", &[U32, U8, U8, Hexadecimal]),
    (64, "SVCB", SERVICE),
    (65, "HTTPS", SERVICE),
    (66, "DSYNC", &[Kind, Scheme, U16, Name]),
    (99, "SPF", &[Texts]),
    (100, "UINFO", &[Text]),
    (101, "UID", &[U32]),
    (102, "GID", &[U32]),
    (103, "UNSPEC", &[]),
    (104, "NID", &[U16, Locator]),
    (105, "L32", &[U16, V4]),
    (106, "L64", &[U16, Locator]),
    (107, "LP", &[U16, Name]),
    (108, "EUI48", &[Hyphens(6)]),
    (109, "EUI64", &[Hyphens(8)]),
    (128, "NXNAME", &[]),
    (249, "TKEY", &[]),
    (253, "MAILB", &[]),
    (254, "MAILA", &[]),
    (256, "URI", &[U16, U16, Plain]),
    (258, "AVC", &[Texts]),
    (259, "DOA", &[U32, U32, U8, Text, Base64]),
    (260, "AMTRELAY", &[U8, Relay]),
    (261, "RESINFO", &[Texts]),
    (262, "WALLET", &[Texts]),
    (32768, "TA", DIGEST),
    (32769, "DLV", DIGEST),
];

/// Algorithms of DNSSEC (IANA).
const ALGORITHMS: &[(u8, &str)] = &[
    (0, "DELETE"),
    (1, "RSAMD5"),
    (2, "DH"),
    (3, "DSA"),
    (5, "RSASHA1"),
    (6, "DSA-NSEC3-SHA1"),
    (6, "NSEC3DSA"),
    (7, "RSASHA1-NSEC3-SHA1"),
    (7, "NSEC3RSASHA1"),
    (8, "RSASHA256"),
    (10, "RSASHA512"),
    (12, "ECC-GOST"),
    (12, "ECCGOST"),
    (13, "ECDSAP256SHA256"),
    (14, "ECDSAP384SHA384"),
    (15, "ED25519"),
    (16, "ED448"),
    (252, "INDIRECT"),
    (253, "PRIVATEDNS"),
    (254, "PRIVATEOID"),
];

/// Kinds of certificates (RFC 4398 section 2.1).
const CERTIFICATES: &[(u16, &str)] = &[
    (1, "PKIX"),
    (2, "SPKI"),
    (3, "PGP"),
    (4, "IPKIX"),
    (5, "ISPKI"),
    (6, "IPGP"),
    (7, "ACPKIX"),
    (8, "IACPKIX"),
    (253, "URI"),
    (254, "OID"),
];

/// Parameters of services (IANA), by number.
const PARAMETERS: &[&str] = &[
    "mandatory",
    "alpn",
    "no-default-alpn",
    "port",
    "ipv4hint",
    "ech",
    "ipv6hint",
    "dohpath",
    "ohttp",
    "tls-supported-groups",
];

/// A type that a record can have, by name, or by number as `TYPE65280` (RFC 3597).
pub(crate) fn kind(text: &str) -> Option<RecordType> {
    let upper = text.to_ascii_uppercase();
    if let Some(number) = upper.strip_prefix("TYPE") {
        return number.parse::<u16>().ok().map(RecordType::from);
    }
    match upper.as_str() {
        "ANY" | "AXFR" | "IXFR" | "OPT" | "TSIG" | "TKEY" | "MAILA" | "MAILB" | "NONE" | "*" => {
            None
        }
        name => match TYPES.iter().find(|(_, known, _)| *known == name) {
            Some((number, ..)) => Some(RecordType::from(*number)),
            None => name.parse().ok(),
        },
    }
}

/// A type's name, or its number as `TYPE65280`.
pub(crate) fn kind_text(kind: RecordType) -> String {
    let number = u16::from(kind);
    match TYPES.iter().find(|(known, ..)| *known == number) {
        Some((_, name, _)) => (*name).to_owned(),
        None if matches!(kind, RecordType::Unknown(_)) => format!("TYPE{number}"),
        None => kind.to_string(),
    }
}

/// A class's name, or its number as `CLASS65280`.
pub(crate) fn class_text(class: DNSClass) -> String {
    match class {
        DNSClass::Unknown(number) => format!("CLASS{number}"),
        class => class.to_string(),
    }
}

/// How the data of a type is written; nothing where that is read elsewhere.
pub(super) fn fields(kind: RecordType) -> Option<&'static [Field]> {
    let number = u16::from(kind);
    let found = TYPES.iter().find(|(known, ..)| *known == number);
    found
        .map(|(_, _, fields)| *fields)
        .filter(|fields| !fields.is_empty())
}

/// Whether records of a type are kept as the octets that they are made of.
pub(super) fn opaque(kind: RecordType) -> bool {
    match u16::from(kind) {
        // The decoder knows them.
        37 | 64 | 65 => false,
        256.. => kind != RecordType::CAA,
        _ => fields(kind).is_some(),
    }
}

/// An algorithm by name.
pub(super) fn algorithm(text: &str) -> Option<u8> {
    named(ALGORITHMS, text)
}

/// A kind of certificate by name.
pub(super) fn certificate(text: &str) -> Option<u16> {
    named(CERTIFICATES, text)
}

/// A parameter of a service, by name or as `key65280`.
pub(super) fn parameter(text: &str) -> Option<u16> {
    if let Some(number) = text.strip_prefix("key") {
        return number.parse().ok();
    }
    let at = PARAMETERS.iter().position(|known| *known == text)?;
    u16::try_from(at).ok()
}

/// A parameter's name, or `key65280`.
pub(super) fn parameter_text(number: u16) -> String {
    match PARAMETERS.get(usize::from(number)) {
        Some(name) => (*name).to_owned(),
        None => format!("key{number}"),
    }
}

fn named<N: Copy>(known: &[(N, &str)], text: &str) -> Option<N> {
    let mut known = known.iter();
    let (number, _) = known.find(|(_, name)| name.eq_ignore_ascii_case(text))?;
    Some(*number)
}
