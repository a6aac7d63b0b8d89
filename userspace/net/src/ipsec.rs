//! Whether this network namespace has IPsec policies: what is sent past the stack would leave in the clear, or come in
//! without having been checked.

use std::io;

use rustix::io::Errno;
use rustix::net::netlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::Error;
use crate::attributes::{find, u16_at, u32_at};

/// linux/xfrm.h: a question for the numbers of policies, and the answer.
const XFRM_MSG_NEWSPDINFO: u16 = 0x24;
const XFRM_MSG_GETSPDINFO: u16 = 0x25;
/// What becomes of packets that no policy is about, asked and answered. Kernel 5.15 (2d151d39073a).
const XFRM_MSG_GETDEFAULT: u16 = 0x28;
const XFRM_USERPOLICY_BLOCK: u8 = 1;
const XFRMA_SPD_INFO: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
/// Length of a netlink header, and of that with the flags behind it.
const HEADER: usize = 16;
const BODY: usize = 20;

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
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::XFRM),
    );
    let socket = match socket {
        Ok(socket) => socket,
        // A kernel without IPsec.
        Err(Errno::PROTONOSUPPORT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut answer = [0_u8; 1024];
    for question in [XFRM_MSG_GETSPDINFO, XFRM_MSG_GETDEFAULT] {
        let mut request = Vec::with_capacity(BODY);
        request.extend((BODY as u32).to_ne_bytes());
        request.extend(question.to_ne_bytes());
        request.extend(NLM_F_REQUEST.to_ne_bytes());
        request.extend([0; 8]); // sequence, port
        request.extend([0; 4]); // flags, or the defaults that are asked for
        rustix::net::send(&socket, &request, SendFlags::empty())?;
        let (_, len) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
        if read(question, &answer[..len.min(answer.len())])? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read(question: u16, message: &[u8]) -> io::Result<bool> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "short answer about IPsec");
    match u16_at(message, 4).ok_or_else(short)? {
        NLMSG_ERROR => {
            let errno = u32_at(message, HEADER).ok_or_else(short)? as i32;
            match Errno::from_raw_os_error(errno.saturating_neg()) {
                // A kernel without defaults accepts.
                Errno::INVAL if question == XFRM_MSG_GETDEFAULT => Ok(false),
                error => Err(error.into()),
            }
        }
        XFRM_MSG_NEWSPDINFO => {
            // Three numbers of policies by direction, then three of those that belong to sockets.
            let numbers = message
                .get(BODY..)
                .and_then(|attributes| find(attributes, XFRMA_SPD_INFO))
                .ok_or_else(short)?;
            let number = |i: usize| u32_at(numbers, i * 4).ok_or_else(short);
            Ok(number(0)? != 0 || number(1)? != 0 || number(2)? != 0)
        }
        XFRM_MSG_GETDEFAULT => {
            // In, forwarded, out.
            let defaults = message.get(HEADER..HEADER + 3).ok_or_else(short)?;
            Ok(defaults.contains(&XFRM_USERPOLICY_BLOCK))
        }
        _ => Err(short()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(numbers: [u32; 6]) -> Vec<u8> {
        let mut bytes = vec![0; BODY];
        bytes[4..6].copy_from_slice(&XFRM_MSG_NEWSPDINFO.to_ne_bytes());
        bytes.extend(28_u16.to_ne_bytes());
        bytes.extend(XFRMA_SPD_INFO.to_ne_bytes());
        bytes.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
        bytes
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
        let mut message = vec![0; BODY];
        message[4..6].copy_from_slice(&XFRM_MSG_GETDEFAULT.to_ne_bytes());
        message[HEADER..HEADER + 3].copy_from_slice(&[2, 2, 2]);
        assert!(!read(XFRM_MSG_GETDEFAULT, &message)?);
        for direction in 0..3 {
            let mut message = message.clone();
            message[HEADER + direction] = XFRM_USERPOLICY_BLOCK;
            assert!(read(XFRM_MSG_GETDEFAULT, &message)?);
        }
        let mut refused = vec![0; BODY];
        refused[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        refused[HEADER..].copy_from_slice(&(-22_i32).to_ne_bytes());
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
