//! `tsig`: signed queries and answers (RFC 8945). A query's signature is checked over the octets as they came; the
//! transport signs the answer's octets with what [`Verified`] holds.

mod config;
mod record;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::hmac;
use futures_util::future::BoxFuture;
use hickory_proto::op::OpCode;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RecordType;

use self::config::Required;
pub(super) use self::config::make;
use self::record::Signed;
use super::Next;
use super::Plugin;
use super::setup::matching;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::names;

/// Seconds that the clocks may differ where the query does not say (RFC 8945, 10).
const FUDGE: u16 = 300;

const TSIG: u16 = 250;

/// Class ANY and a TTL of zero, which every TSIG record has (RFC 8945, 4.2).
const CLASS_AND_TTL: [u8; 6] = [0, 255, 0, 0, 0, 0];

/// The errors of RFC 8945, 3.
const BADSIG: u16 = 16;
const BADKEY: u16 = 17;
const BADTIME: u16 = 18;

/// The key that signed a query, once its signature was found good, and what the answer's signature needs.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The key's name.
    pub key: Name,
    algorithm: Algorithm,
    secret: Arc<Vec<u8>>,
    /// The query's signature, which the answer's covers.
    mac: Vec<u8>,
    /// When the query was signed, by its client's clock.
    time: u64,
    error: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"\x09hmac-sha1\0" => Some(Self::Sha1),
            b"\x0bhmac-sha224\0" => Some(Self::Sha224),
            b"\x0bhmac-sha256\0" => Some(Self::Sha256),
            b"\x0bhmac-sha384\0" => Some(Self::Sha384),
            b"\x0bhmac-sha512\0" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn name(self) -> &'static [u8] {
        match self {
            Self::Sha1 => b"\x09hmac-sha1\0",
            Self::Sha224 => b"\x0bhmac-sha224\0",
            Self::Sha256 => b"\x0bhmac-sha256\0",
            Self::Sha384 => b"\x0bhmac-sha384\0",
            Self::Sha512 => b"\x0bhmac-sha512\0",
        }
    }

    fn key(self, secret: &[u8]) -> hmac::Key {
        let algorithm = match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha224 => hmac::HMAC_SHA224,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::Key::new(algorithm, secret)
    }
}

struct Tsig {
    zones: Vec<Name>,
    keys: BTreeMap<Vec<u8>, Arc<Vec<u8>>>,
    /// Types of questions that must be signed.
    required: Required<RecordType>,
    /// Opcodes of messages that must be signed.
    required_opcodes: Required<OpCode>,
}

impl Plugin for Tsig {
    fn name(&self) -> &'static str {
        "tsig"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        if matching(&self.zones, request.name()).is_none() {
            return next.serve(request);
        }
        let signed = match Signed::read(&request.raw) {
            Ok(Some(signed)) => signed,
            Ok(None) => {
                let opcode = &request.message.metadata.op_code;
                if self.required.has(&request.kind()) || self.required_opcodes.has(opcode) {
                    return refuse(request, ResponseCode::Refused);
                }
                return next.serve(request);
            }
            Err(()) => return refuse(request, ResponseCode::FormErr),
        };
        let (verified, good) = self.verify(&signed, &request.raw);
        request.tsig = Some(Arc::new(verified));
        if !good {
            return refuse(request, ResponseCode::NotAuth);
        }
        next.serve(request)
    }
}

fn refuse<'a>(request: &'a Request, code: ResponseCode) -> BoxFuture<'a, Served> {
    Box::pin(async move { Ok(Outcome::answer("tsig", request.reply(code))) })
}

impl Tsig {
    /// What the answer is signed with, and whether the query's signature is good.
    fn verify(&self, signed: &Signed<'_>, raw: &[u8]) -> (Verified, bool) {
        let of = |algorithm, secret, error| Verified {
            key: signed.owner.clone(),
            algorithm,
            secret,
            mac: signed.mac.to_vec(),
            time: signed.time,
            error,
        };
        let found = self
            .keys
            .get(&names::wire(&signed.owner))
            .zip(Algorithm::of(&signed.algorithm));
        let Some((secret, algorithm)) = found else {
            // Unknown keys get an unsigned error (RFC 8945, 5.2.1).
            return (of(Algorithm::Sha256, Arc::new(Vec::new()), BADKEY), false);
        };
        let data = signed.digest_input(raw);
        if hmac::verify(&algorithm.key(secret), &data, signed.mac).is_err() {
            return (of(algorithm, Arc::new(Vec::new()), BADSIG), false);
        }
        let fresh = now().abs_diff(signed.time) <= u64::from(signed.fudge);
        let error = if fresh { 0 } else { BADTIME };
        (of(algorithm, Arc::clone(secret), error), fresh)
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Verified {
    /// Octets that a signature adds to a message at most.
    #[must_use]
    pub fn record_len(&self) -> u16 {
        // Type, class, TTL and length; time and fudge, length of the MAC, identifier, error, other data and its length.
        const FIXED: u16 = 10 + 8 + 2 + 2 + 2 + 2 + 6;
        const MAC_MAX: u16 = 64;
        FIXED + MAC_MAX + length(&names::wire(&self.key)) + length(self.algorithm.name())
    }

    /// The messages of one answer, in their order, each with its signature.
    #[must_use]
    pub fn sign_all(&self, answers: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut previous: Option<Vec<u8>> = None;
        let signed = answers.iter().map(|answer| {
            let (octets, mac) = self.sign(answer, previous.as_deref());
            previous = Some(mac);
            octets
        });
        signed.collect()
    }

    /// The answer's octets with its signature appended. `previous` is the signature of the message before in the
    /// same stream, of which only the first covers the query's (RFC 8945, 5.3.1). Gives octets and signature.
    #[must_use]
    pub fn sign(&self, answer: &[u8], previous: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
        let owner = names::wire(&self.key);
        // Whose clock is wrong is told the right time in a message that is right by his (RFC 8945, 5.2.3).
        let (time, other) = match self.error {
            BADTIME => (self.time, octets_of(now())),
            _ => (now(), Vec::new()),
        };
        let timers = [octets_of(time).as_slice(), &FUDGE.to_be_bytes()].concat();
        let mac = if self.secret.is_empty() {
            Vec::new()
        } else {
            let before = previous.unwrap_or(&self.mac);
            let mut data = length(before).to_be_bytes().to_vec();
            data.extend_from_slice(before);
            data.extend_from_slice(answer);
            if previous.is_none() {
                data.extend_from_slice(&owner);
                data.extend(CLASS_AND_TTL);
                data.extend_from_slice(self.algorithm.name());
                data.extend_from_slice(&timers);
                data.extend(self.error.to_be_bytes());
                data.extend(length(&other).to_be_bytes());
                data.extend_from_slice(&other);
            } else {
                data.extend_from_slice(&timers);
            }
            hmac::sign(&self.algorithm.key(&self.secret), &data)
                .as_ref()
                .to_vec()
        };
        let mut record = self.algorithm.name().to_vec();
        record.extend_from_slice(&timers);
        record.extend(length(&mac).to_be_bytes());
        record.extend_from_slice(&mac);
        record.extend_from_slice(answer.get(..2).unwrap_or_default());
        record.extend(self.error.to_be_bytes());
        record.extend(length(&other).to_be_bytes());
        record.extend_from_slice(&other);
        let mut signed = answer.to_vec();
        if let Some(count) = signed.get_mut(10..12) {
            let counted: [u8; 2] = [count[0], count[1]];
            let more = u16::from_be_bytes(counted).saturating_add(1);
            count.copy_from_slice(&more.to_be_bytes());
        }
        signed.extend_from_slice(&owner);
        signed.extend(TSIG.to_be_bytes());
        signed.extend(CLASS_AND_TTL);
        signed.extend(length(&record).to_be_bytes());
        signed.extend_from_slice(&record);
        (signed, mac)
    }
}

fn length(octets: &[u8]) -> u16 {
    u16::try_from(octets.len()).unwrap_or(u16::MAX)
}

/// A time as TSIG records have it, in 48 bits.
fn octets_of(time: u64) -> Vec<u8> {
    time.to_be_bytes().get(2..).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin() -> Tsig {
        let name = names::parse("key.example").unwrap();
        Tsig {
            zones: vec![Name::root()],
            keys: [(names::wire(&name), Arc::new(b"secret".to_vec()))].into(),
            required: Required::All,
            required_opcodes: Required::These(Vec::new()),
        }
    }

    /// A query as [`Verified::sign`] would sign an answer to nothing: the first message of a conversation has no
    /// signature before it, which is what a prior signature of zero length would add two octets for.
    fn signed_query(secret: &[u8], time: u64) -> Vec<u8> {
        owned_query(b"\x03key\x07example\0", secret, time)
    }

    /// The same with the key's name as it is to stand in the message.
    fn owned_query(written: &[u8], secret: &[u8], time: u64) -> Vec<u8> {
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(b"\x07example\0\0\x01\0\x01");
        let owner = b"\x03key\x07example\0";
        let mut data = query.clone();
        data.extend(owner);
        data.extend(CLASS_AND_TTL);
        data.extend(b"\x0bhmac-sha256\0");
        data.extend(&time.to_be_bytes()[2..]);
        data.extend(FUDGE.to_be_bytes());
        data.extend([0, 0, 0, 0]);
        let mac = hmac::sign(&Algorithm::Sha256.key(secret), &data);
        let mut record = b"\x0bhmac-sha256\0".to_vec();
        record.extend(&time.to_be_bytes()[2..]);
        record.extend(FUDGE.to_be_bytes());
        record.extend(length(mac.as_ref()).to_be_bytes());
        record.extend(mac.as_ref());
        record.extend([0, 7, 0, 0, 0, 0]);
        query[11] = 1;
        query.extend(written);
        query.extend([0, 250, 0, 255, 0, 0, 0, 0]);
        query.extend(length(&record).to_be_bytes());
        query.extend(record);
        query
    }

    #[test]
    fn algorithms_are_those_of_their_names() {
        let table: [(&[u8], usize); 5] = [
            (b"\x09hmac-sha1\0", 20),
            (b"\x0bhmac-sha224\0", 28),
            (b"\x0bhmac-sha256\0", 32),
            (b"\x0bhmac-sha384\0", 48),
            (b"\x0bhmac-sha512\0", 64),
        ];
        for (name, octets) in table {
            let algorithm = Algorithm::of(name).expect("a known algorithm");
            assert_eq!(algorithm.name(), name);
            let mac = hmac::sign(&algorithm.key(b"secret"), b"");
            assert_eq!(mac.as_ref().len(), octets, "{algorithm:?}");
        }
    }

    #[test]
    fn signatures_are_checked() {
        let table = [
            (signed_query(b"secret", now()), 0, true),
            (signed_query(b"guess", now()), BADSIG, false),
            (signed_query(b"secret", now() - 1000), BADTIME, false),
        ];
        for (query, error, good) in table {
            let signed = Signed::read(&query).unwrap().unwrap();
            let (verified, found) = plugin().verify(&signed, &query);
            assert_eq!((verified.error, found), (error, good));
        }
    }

    /// RFC 8945, 5.2.3: signed, with the client's time where the answer's stands, and the server's beside it.
    #[test]
    fn a_wrong_clock_is_told_the_time() {
        let asked_at = now() - 1000;
        let query = signed_query(b"secret", asked_at);
        let (verified, _) = plugin().verify(&Signed::read(&query).unwrap().unwrap(), &query);
        // The question, and no record.
        let mut answer = query[..25].to_vec();
        answer[11] = 0;
        let (octets, mac) = verified.sign(&answer, None);
        assert!(octets.len() <= answer.len() + usize::from(verified.record_len()));
        let signed = Signed::read(&octets).unwrap().unwrap();
        assert_eq!((signed.time, signed.error), (asked_at, BADTIME));
        let told = signed
            .other
            .iter()
            .fold(0, |time, octet| time << 8 | u64::from(*octet));
        assert_eq!(signed.other.len(), 6);
        assert!(now() - told <= 1, "{told}");
        // The client checks it so: his own signature stands before what is signed.
        let before = Signed::read(&query).unwrap().unwrap().mac;
        let mut data = length(before).to_be_bytes().to_vec();
        data.extend_from_slice(before);
        data.extend(signed.digest_input(&octets));
        let key = Algorithm::Sha256.key(b"secret");
        assert!(hmac::verify(&key, &data, &mac).is_ok());
    }

    #[test]
    fn the_name_of_the_key_may_be_compressed() {
        // The question's name begins behind the header.
        let query = owned_query(b"\x03KEY\xc0\x0c", b"secret", now());
        let signed = Signed::read(&query).unwrap().unwrap();
        assert!(plugin().verify(&signed, &query).1);
        // A pointer to itself, and one beyond the message.
        for pointer in [b"\xc0\x19", b"\xc3\xff"] {
            assert!(Signed::read(&owned_query(pointer, b"secret", now())).is_err());
        }
    }

    #[test]
    fn a_changed_octet_is_found() {
        let query = signed_query(b"secret", now());
        for at in [0, 2, 13, 22] {
            let mut changed = query.clone();
            changed[at] ^= 1;
            // The identifier may change on the way: the original one is in the record.
            let expected = at == 0;
            let signed = Signed::read(&changed).unwrap().unwrap();
            assert_eq!(plugin().verify(&signed, &changed).1, expected, "octet {at}");
        }
    }

    #[test]
    fn no_octets_are_too_strange() {
        let query = signed_query(b"secret", now());
        for length in 0..query.len() {
            let _ = Signed::read(&query[..length]);
        }
        for at in 0..query.len() {
            for octet in [0, 1, 0x3f, 0xc0, 0xff] {
                let mut changed = query.clone();
                changed[at] = octet;
                let _ = Signed::read(&changed);
            }
        }
    }
}
