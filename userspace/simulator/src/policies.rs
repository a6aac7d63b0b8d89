//! The tables of policies.

use abi::policy::{ADDRESS_BITS, EPOCH_BITS, NOBODY, flags};
use abi::{
    Conversation, Flow4, Flow6, PolicyAnswer, PolicyControl, PolicyLink, PolicyLinkKey,
    PolicyPeerKey, PolicyPortKey, PolicyVerdictKey,
};
use packet::policy::{Policies, Seen, Side, lets_pass};
use packet::{V4, V6};

use crate::Memory;

impl Memory {
    /// Whether there is anything to judge by.
    pub(crate) fn enforces(&self) -> bool {
        self.start().policies.control.flags & flags::ENFORCED != 0
    }

    /// The identity of the longest range that holds an address.
    fn identity(&self, key: &PolicyPeerKey) -> u32 {
        let addr = u128::from_be_bytes(key.addr);
        let in_range = |range: &PolicyPeerKey| {
            let bits = range.prefix_len.saturating_sub(EPOCH_BITS);
            let differs = addr ^ u128::from_be_bytes(range.addr);
            range.epoch == key.epoch
                && (bits == 0 || bits <= ADDRESS_BITS && differs >> (ADDRESS_BITS - bits) == 0)
        };
        let ranges = self.start().policies.peers.iter();
        let longest = ranges
            .filter(|(range, _)| in_range(range))
            .max_by_key(|(range, _)| range.prefix_len);
        longest.map_or(NOBODY, |(_, identity)| *identity)
    }

    fn has_port(&self, key: &PolicyPortKey) -> bool {
        let mut ranges = self.start().policies.ports.keys();
        ranges.any(|range| {
            let bits = range.prefix_len.saturating_sub(abi::policy::PORT_AT);
            let differs = range.port.get() ^ key.port.get();
            (range.profile, range.proto) == (key.profile, key.proto)
                && (bits == 0 || bits <= 16 && differs >> (16 - bits) == 0)
        })
    }
}

macro_rules! policies {
    ($family:ty, $flow:ty, $conversations:ident) => {
        impl Policies<$family> for Memory {
            fn control(&self) -> Option<&PolicyControl> {
                Some(&self.start().policies.control)
            }

            fn link(&self, key: &PolicyLinkKey) -> Option<&PolicyLink> {
                self.start().policies.links.get(key)
            }

            fn peer(&self, key: &PolicyPeerKey) -> u32 {
                self.identity(key)
            }

            fn verdict(&self, key: &PolicyVerdictKey) -> Option<u32> {
                self.start().policies.verdicts.get(key).copied()
            }

            fn port(&self, key: &PolicyPortKey) -> bool {
                self.has_port(key)
            }

            fn conversation(&self, key: &$flow) -> Option<Conversation> {
                self.$conversations.borrow().get(key).copied()
            }

            fn keep_conversation(&self, key: &$flow, conversation: &Conversation) {
                let mut conversations = self.$conversations.borrow_mut();
                conversations.insert(*key, *conversation);
            }

            fn policy_secs(&self) -> u32 {
                self.start().now_secs
            }

            // Whoever remembers nothing looks everything up, and finds the same.

            fn has_passed(&self, _: &$flow, _: &Seen, _: u8) -> bool {
                false
            }

            fn remember_passed(&self, _: &$flow, _: &Seen) {}

            fn lets_pass(
                &self,
                asked: &PolicyAnswer,
                epoch: u32,
                side: Side,
                remembers: bool,
            ) -> bool {
                lets_pass::<$family, _>(self, asked, epoch, side, remembers)
            }

            fn is_answered(&self, _: &PolicyAnswer) -> bool {
                false
            }

            fn remember_answer(&self, _: &PolicyAnswer) {}
        }
    };
}

policies!(V4, Flow4, conversations4);
policies!(V6, Flow6, conversations6);
