//! Actions of a filter (linux/tc_act/tc_csum.h, linux/tc_act/tc_mirred.h).
//!
//! ```text
//! 1                    an action's place among those of the filter
//!   TCA_ACT_KIND
//!   TCA_ACT_OPTIONS
//!     TCA_CSUM_PARMS    struct tc_csum { tc_gen, u32 update_flags }
//!     TCA_MIRRED_PARMS  struct tc_mirred { tc_gen, i32 eaction, u32 ifindex }
//!   TCA_ACT_COOKIE      a mark of the program that made it, 16 bytes at most
//! tc_gen: u32 index, u32 capab, i32 action, i32 refcnt, i32 bindcnt
//! ```

use nix::libc::RTM_NEWACTION;

use crate::kernel::attributes::{attribute, attributes, number, text};
use crate::kernel::netlink::Request;
use crate::object::FilterAction;

const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_ACT_COOKIE: u16 = 6;
const NLA_F_NESTED: u16 = 1 << 15;
const TCA_CSUM_PARMS: u16 = 1;
const TCA_MIRRED_PARMS: u16 = 2;
/// TCA_EGRESS_REDIR of linux/tc_act/tc_mirred.h: the frame leaves by another device, and goes on nowhere else.
const TCA_EGRESS_REDIR: u32 = 1;
/// TCA_CSUM_UPDATE_FLAG_TCP of linux/tc_act/tc_csum.h.
const UPDATE_TCP: u32 = 8;
/// TC_ACT_* of linux/pkt_cls.h.
const TC_ACT_OK: u32 = 0;
const TC_ACT_STOLEN: u32 = 4;
/// Where in tc_gen the action is, and its length.
const GEN_ACTION: usize = 8;
const GEN: usize = 20;
/// TCA_ACT_TAB of linux/rtnetlink.h, and the length of struct tcamsg before it.
const TCA_ACT_TAB: u16 = 1;
const TCAMSG: usize = 4;

/// The one action of a filter, with its cookie; of a redirection, `target` is the number of its device.
pub(super) fn encode(action: FilterAction, target: u32, cookie: &[u8]) -> Vec<u8> {
    let generic = |verdict: u32| [0, 0, verdict, 0, 0].map(u32::to_ne_bytes).concat();
    let (kind, parms, fields) = match action {
        FilterAction::Tcp => {
            ("csum\0", TCA_CSUM_PARMS, [generic(TC_ACT_OK), UPDATE_TCP.to_ne_bytes().to_vec()].concat())
        }
        FilterAction::Redirect => {
            let fields = [generic(TC_ACT_STOLEN), [TCA_EGRESS_REDIR, target].map(u32::to_ne_bytes).concat()];
            ("mirred\0", TCA_MIRRED_PARMS, fields.concat())
        }
    };
    let mut inside = attribute(TCA_ACT_KIND, kind.as_bytes());
    inside.extend(attribute(TCA_ACT_OPTIONS | NLA_F_NESTED, &attribute(parms, &fields)));
    if !cookie.is_empty() {
        inside.extend(attribute(TCA_ACT_COOKIE, cookie));
    }
    attribute(1, &inside)
}

/// An action as the kernel reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FoundAction {
    /// None: what no filter of ours has.
    pub action: Option<FilterAction>,
    /// The device of a redirection; 0 is one that is gone.
    pub target: Option<u32>,
    pub cookie: Vec<u8>,
}

/// Reads the actions of a filter.
pub(super) fn decode(table: &[u8]) -> Vec<FoundAction> {
    attributes(table).map(|(_, action)| one(action)).collect()
}

fn one(action: &[u8]) -> FoundAction {
    let (mut kind, mut options, mut found) = (String::new(), &[][..], FoundAction::default());
    for (what, value) in attributes(action) {
        match what {
            TCA_ACT_KIND => kind = text(value),
            TCA_ACT_OPTIONS => options = value,
            TCA_ACT_COOKIE => found.cookie = value.to_vec(),
            _ => {}
        }
    }
    let field = |parms: u16, place: usize| {
        let (_, value) = attributes(options).find(|it| it.0 == parms)?;
        number(value.get(place..)?)
    };
    let (ok, stolen) = (Some(TC_ACT_OK), Some(TC_ACT_STOLEN));
    match kind.as_str() {
        "csum" if (field(TCA_CSUM_PARMS, GEN_ACTION), field(TCA_CSUM_PARMS, GEN)) == (ok, Some(UPDATE_TCP)) => {
            found.action = Some(FilterAction::Tcp);
        }
        "mirred"
            if (field(TCA_MIRRED_PARMS, GEN_ACTION), field(TCA_MIRRED_PARMS, GEN))
                == (stolen, Some(TCA_EGRESS_REDIR)) =>
        {
            found.action = Some(FilterAction::Redirect);
            found.target = field(TCA_MIRRED_PARMS, GEN + 4);
        }
        _ => {}
    }
    found
}

/// A request that makes nothing: the kernel loads the action csum and then refuses it, as it lacks its options (EINVAL); without that
/// action it is ENOENT.
pub fn asks_for_csum() -> Request {
    let action = attribute(1, &attribute(TCA_ACT_KIND, b"csum\0"));
    Request::of_bytes(RTM_NEWACTION, [vec![0; TCAMSG], attribute(TCA_ACT_TAB, &action)].concat(), 0)
}
