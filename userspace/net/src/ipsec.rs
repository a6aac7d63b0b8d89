//! Whether this network namespace has IPsec policies: what is sent past the stack would leave in the clear, or come in
//! without having been checked.

use std::io;

use rustix::io::Errno;

use crate::Error;
use crate::netlink::{self, Message, NLMSG_ERROR, find, u32_at};

/// linux/xfrm.h: a question for the numbers of policies, and the answer.
const XFRM_MSG_NEWSPDINFO: u16 = 0x24;
const XFRM_MSG_GETSPDINFO: u16 = 0x25;
/// What becomes of packets that no policy is about, asked and answered. Kernel 5.15 (2d151d39073a).
const XFRM_MSG_GETDEFAULT: u16 = 0x28;
const XFRM_USERPOLICY_BLOCK: u8 = 1;
const XFRMA_SPD_INFO: u16 = 1;
/// Length of the flags in front of attributes.
const HEAD: usize = 4;

/// Whether there is a policy for packets that come in, go out or are forwarded, or whether those without one are
/// blocked.
///
/// # Errors
///
/// [`Error::Ipsec`] if the kernel has IPsec and refuses to say.
pub fn has_ipsec_policies() -> Result<bool, Error> {
    ask().map_err(Error::Ipsec)
}

fn ask() -> io::Result<bool> {
    let socket = match netlink::socket(netlink::XFRM) {
        Ok(socket) => socket,
        // A kernel without IPsec.
        Err(Errno::PROTONOSUPPORT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut answer = [0_u8; 1024];
    for question in [XFRM_MSG_GETSPDINFO, XFRM_MSG_GETDEFAULT] {
        // No flags, and no defaults that are asked for.
        netlink::send(&socket, &netlink::request(question, 0, &[0; HEAD]))?;
        if read(question, netlink::receive(&socket, &mut answer)?)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read(question: u16, answer: &[u8]) -> io::Result<bool> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "short answer about IPsec");
    let message = netlink::messages(answer).next().ok_or_else(short)??;
    let Message { kind, body, .. } = message;
    match kind {
        NLMSG_ERROR => match Errno::from_raw_os_error(message.errno()?) {
            // A kernel without defaults accepts.
            Errno::INVAL if question == XFRM_MSG_GETDEFAULT => Ok(false),
            error => Err(error.into()),
        },
        XFRM_MSG_NEWSPDINFO => {
            // Three numbers of policies by direction, then three of those that belong to sockets.
            let numbers = body
                .get(HEAD..)
                .and_then(|attributes| find(attributes, XFRMA_SPD_INFO))
                .ok_or_else(short)?;
            let number = |i: usize| u32_at(numbers, i * 4).ok_or_else(short);
            Ok(number(0)? != 0 || number(1)? != 0 || number(2)? != 0)
        }
        XFRM_MSG_GETDEFAULT => {
            // In, forwarded, out.
            let defaults = body.get(..3).ok_or_else(short)?;
            Ok(defaults.contains(&XFRM_USERPOLICY_BLOCK))
        }
        _ => Err(short()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{attribute, request};

    fn answer(numbers: [u32; 6]) -> Vec<u8> {
        let numbers = numbers.map(u32::to_ne_bytes).concat();
        let body = [vec![0; HEAD], attribute(XFRMA_SPD_INFO, &numbers)].concat();
        request(XFRM_MSG_NEWSPDINFO, 0, &body)
    }

    #[test]
    fn policies_are_counted_whichever_way_they_are_for() -> io::Result<()> {
        assert!(!read(XFRM_MSG_GETSPDINFO, &answer([0; 6]))?);
        assert!(
            !read(XFRM_MSG_GETSPDINFO, &answer([0, 0, 0, 1, 1, 1]))?,
            "those of sockets"
        );
        for direction in 0..3 {
            let mut numbers = [0; 6];
            numbers[direction] = 1;
            assert!(read(XFRM_MSG_GETSPDINFO, &answer(numbers))?);
        }
        Ok(())
    }

    #[test]
    fn a_default_that_blocks_is_a_policy() -> io::Result<()> {
        let accepting = [2, 2, 2, 0];
        let answer = |defaults: [u8; 4]| request(XFRM_MSG_GETDEFAULT, 0, &defaults);
        assert!(!read(XFRM_MSG_GETDEFAULT, &answer(accepting))?);
        for direction in 0..3 {
            let mut defaults = accepting;
            defaults[direction] = XFRM_USERPOLICY_BLOCK;
            assert!(read(XFRM_MSG_GETDEFAULT, &answer(defaults))?);
        }
        let refused = request(NLMSG_ERROR, 0, &(-22_i32).to_ne_bytes());
        assert!(!read(XFRM_MSG_GETDEFAULT, &refused)?, "an older kernel");
        assert!(read(XFRM_MSG_GETSPDINFO, &refused).is_err());
        Ok(())
    }

    #[test]
    fn an_answer_that_is_cut_short_is_an_error() {
        let whole = answer([0; 6]);
        for len in 0..whole.len() {
            assert!(
                read(XFRM_MSG_GETSPDINFO, &whole[..len]).is_err(),
                "{len} bytes"
            );
        }
    }
}
