//! Rules as the expressions of the kernel's virtual machine: load into registers, compare, look up, decide.

use anyhow::{Result, bail, ensure};

use super::encode::data;
use super::message::{Attribute, attribute, nested, number, text};
use super::uapi::*;
use super::value::{bytes, layout};
use crate::ruleset::{Equality, Field, Raw, RawHeader, Rule, Selector, Statement, TableFamily, Value};

/// Where the kernel finds a field.
enum Source {
    /// A key of `meta`.
    Meta(u32),
    /// What the routes say of an address of the packet: which, and what of it.
    Fib(u32, u32),
    /// A header and an offset into it, in bytes.
    Payload(u32, u32),
    /// An extension header of IPv6, an offset into it in bytes, and which bits there.
    Extension(u8, u32, [u8; 2]),
    /// Whether there is such an extension header of IPv6.
    HasExtension(u8),
}

/// The header a field belongs to: a packet must be known to have it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Header {
    /// None: every packet has the field.
    Any,
    Ether,
    Ip,
    Ip6,
    Arp,
    /// What lies above IPv4 or IPv6, by its protocol number.
    Transport(u8),
    /// What IPv4 alone has behind its own header: the protocol number.
    BehindIp(u8),
    /// What IPv6 alone has behind its own header: the protocol number, or none for extension headers.
    BehindIp6(Option<u8>),
}

/// Where a field is, and in which header.
fn locate(field: Field) -> (Source, Header) {
    match field {
        Field::IifName => (Source::Meta(NFT_META_IIFNAME), Header::Any),
        Field::OifName => (Source::Meta(NFT_META_OIFNAME), Header::Any),
        Field::IifType => (Source::Meta(NFT_META_IIFTYPE), Header::Any),
        Field::Mark => (Source::Meta(NFT_META_MARK), Header::Any),
        Field::DaddrType => (Source::Fib(NFTA_FIB_F_DADDR, NFT_FIB_RESULT_ADDRTYPE), Header::Any),
        Field::DaddrTypeOnIif => (Source::Fib(NFTA_FIB_F_DADDR | NFTA_FIB_F_IIF, NFT_FIB_RESULT_ADDRTYPE), Header::Any),
        Field::SaddrTypeOnOif => (Source::Fib(NFTA_FIB_F_SADDR | NFTA_FIB_F_OIF, NFT_FIB_RESULT_ADDRTYPE), Header::Any),
        Field::Protocol => (Source::Meta(NFT_META_PROTOCOL), Header::Any),
        Field::NfProto => (Source::Meta(NFT_META_NFPROTO), Header::Any),
        Field::L4Proto => (Source::Meta(NFT_META_L4PROTO), Header::Any),
        Field::EtherDaddr => (Source::Payload(NFT_PAYLOAD_LL_HEADER, 0), Header::Ether),
        Field::EtherSaddr => (Source::Payload(NFT_PAYLOAD_LL_HEADER, 6), Header::Ether),
        Field::EtherType => (Source::Payload(NFT_PAYLOAD_LL_HEADER, 12), Header::Ether),
        Field::IpProtocol => (Source::Payload(NFT_PAYLOAD_NETWORK_HEADER, 9), Header::Ip),
        Field::IpSaddr => (Source::Payload(NFT_PAYLOAD_NETWORK_HEADER, 12), Header::Ip),
        Field::IpDaddr => (Source::Payload(NFT_PAYLOAD_NETWORK_HEADER, 16), Header::Ip),
        Field::Ip6NextHeader => (Source::Payload(NFT_PAYLOAD_NETWORK_HEADER, 6), Header::Ip6),
        Field::Ip6Saddr => (Source::Payload(NFT_PAYLOAD_NETWORK_HEADER, 8), Header::Ip6),
        Field::Ip6Daddr => (Source::Payload(NFT_PAYLOAD_NETWORK_HEADER, 24), Header::Ip6),
        Field::ArpOperation => (Source::Payload(NFT_PAYLOAD_NETWORK_HEADER, 6), Header::Arp),
        Field::ArpSaddrEther => (Source::Payload(NFT_PAYLOAD_NETWORK_HEADER, 8), Header::Arp),
        Field::ArpSaddrIp => (Source::Payload(NFT_PAYLOAD_NETWORK_HEADER, 14), Header::Arp),
        Field::ArpDaddrIp => (Source::Payload(NFT_PAYLOAD_NETWORK_HEADER, 24), Header::Arp),
        Field::TcpFlags => (Source::Payload(NFT_PAYLOAD_TRANSPORT_HEADER, 13), Header::Transport(IPPROTO_TCP)),
        Field::TcpDport => (Source::Payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2), Header::Transport(IPPROTO_TCP)),
        Field::UdpSport => (Source::Payload(NFT_PAYLOAD_TRANSPORT_HEADER, 0), Header::Transport(IPPROTO_UDP)),
        Field::UdpDport => (Source::Payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2), Header::Transport(IPPROTO_UDP)),
        Field::ThDport => (Source::Payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2), Header::Any),
        Field::IcmpType => (Source::Payload(NFT_PAYLOAD_TRANSPORT_HEADER, 0), Header::BehindIp(IPPROTO_ICMP)),
        Field::Icmp6Type => (Source::Payload(NFT_PAYLOAD_TRANSPORT_HEADER, 0), Header::BehindIp6(Some(IPPROTO_ICMPV6))),
        Field::IpFragmentOffset => (Source::Payload(NFT_PAYLOAD_NETWORK_HEADER, 6), Header::Ip),
        Field::Ip6FragmentOffset => (Source::Extension(IPPROTO_FRAGMENT, 2, [0xff, 0xf8]), Header::BehindIp6(None)),
        Field::Ip6FragmentHeader => (Source::HasExtension(IPPROTO_FRAGMENT), Header::BehindIp6(None)),
        Field::Raw(Raw { header: RawHeader::Network, offset, .. }) => {
            (Source::Payload(NFT_PAYLOAD_NETWORK_HEADER, offset.into()), Header::Any)
        }
        Field::Raw(Raw { header: RawHeader::Transport, offset, .. }) => {
            (Source::Payload(NFT_PAYLOAD_TRANSPORT_HEADER, offset.into()), Header::Any)
        }
    }
}

/// What nft 1.0.6 compares before it reads such a header in such a family, and does not print.
fn dependencies(family: TableFamily, header: Header) -> Result<Vec<(Field, Value)>> {
    use TableFamily::{Arp, Bridge, Inet};
    let l4 = |protocol| (Field::L4Proto, Value::InetProto(protocol));
    Ok(match (family, header) {
        (_, Header::Any) | (Bridge, Header::Ether) | (Arp, Header::Arp) => Vec::new(),
        (Inet | Arp, Header::Ether) => vec![(Field::IifType, Value::IfaceType(ARPHRD_ETHER))],
        (Inet, Header::Ip) => vec![(Field::NfProto, Value::NfProto(NFPROTO_IPV4))],
        (Inet, Header::Ip6) => vec![(Field::NfProto, Value::NfProto(NFPROTO_IPV6))],
        (Bridge, Header::Ip) => vec![(Field::Protocol, Value::EtherType(ETH_P_IP))],
        (Bridge, Header::Ip6) => vec![(Field::Protocol, Value::EtherType(ETH_P_IPV6))],
        (Bridge, Header::Arp) => vec![(Field::EtherType, Value::EtherType(ETH_P_ARP))],
        (Inet | Bridge, Header::Transport(protocol)) => vec![l4(protocol)],
        (Inet, Header::BehindIp(protocol)) => vec![(Field::NfProto, Value::NfProto(NFPROTO_IPV4)), l4(protocol)],
        (Bridge, Header::BehindIp(protocol)) => vec![(Field::EtherType, Value::EtherType(ETH_P_IP)), l4(protocol)],
        (Inet, Header::BehindIp6(protocol)) => {
            [(Field::NfProto, Value::NfProto(NFPROTO_IPV6))].into_iter().chain(protocol.map(l4)).collect()
        }
        (Bridge, Header::BehindIp6(protocol)) => {
            [(Field::EtherType, Value::EtherType(ETH_P_IPV6))].into_iter().chain(protocol.map(l4)).collect()
        }
        (Inet, Header::Arp)
        | (Arp, Header::Ip | Header::Ip6 | Header::Transport(_) | Header::BehindIp(_) | Header::BehindIp6(_)) => {
            bail!("no packet of a table of family {family} has that header")
        }
    })
}

/// What keeps the checksums right when a field of a header is written: none in ARP; that of IPv4 itself, at offset 10; and those that
/// cover the addresses (TCP, UDP, ICMPv6).
fn checksums(header: Header) -> Option<&'static [(u16, u32)]> {
    match header {
        Header::Arp => Some(&[]),
        Header::Ip => Some(&[
            (NFTA_PAYLOAD_CSUM_TYPE, NFT_PAYLOAD_CSUM_INET),
            (NFTA_PAYLOAD_CSUM_OFFSET, 10),
            (NFTA_PAYLOAD_CSUM_FLAGS, NFT_PAYLOAD_L4CSUM_PSEUDOHDR),
        ]),
        Header::Ip6 => Some(&[(NFTA_PAYLOAD_CSUM_FLAGS, NFT_PAYLOAD_L4CSUM_PSEUDOHDR)]),
        _ => None,
    }
}

/// The expressions of a rule: a list of `NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA {..} }`. They are those of nft, but
/// for what it does to save a comparison: fields side by side, compared one after the other, it loads as one.
pub(super) fn expressions(family: TableFamily, rule: &Rule) -> Result<Vec<Attribute>> {
    let mut program = Program { family, known: Vec::new(), expressions: Vec::new() };
    rule.0.iter().try_for_each(|statement| program.statement(statement))?;
    Ok(program.expressions)
}

/// An expression: `kind { NFTA_EXPR_NAME, NFTA_EXPR_DATA {..} }`.
pub(super) fn expression(kind: u16, name: &str, attributes: Vec<Attribute>) -> Result<Attribute> {
    nested(kind, vec![text(NFTA_EXPR_NAME, name)?, nested(NFTA_EXPR_DATA, attributes)?])
}

struct Program {
    family: TableFamily,
    /// Values that fields are known to have at this point of the rule.
    known: Vec<(Field, Value)>,
    expressions: Vec<Attribute>,
}

impl Program {
    fn statement(&mut self, statement: &Statement) -> Result<()> {
        match statement {
            Statement::Match { selector, equality, value } => self.compare(selector, *equality, value),
            Statement::Lookup { selectors, equality, set } => {
                self.load_all(selectors)?;
                let mut lookup = vec![number(NFTA_LOOKUP_SREG, NFT_REG_1)?, text(NFTA_LOOKUP_SET, set)?];
                if *equality == Equality::NotEqual {
                    lookup.push(number(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV)?);
                }
                self.push("lookup", lookup)
            }
            Statement::Write { field, selectors, map } => {
                let (source, header) = locate(*field);
                let (Source::Payload(base, offset), Some(checksums)) = (source, checksums(header)) else {
                    bail!("{field} cannot be written: expected a field of ARP or an address of IP");
                };
                self.require(header)?;
                self.load_all(selectors)?;
                self.push(
                    "lookup",
                    vec![
                        number(NFTA_LOOKUP_SREG, NFT_REG_1)?,
                        number(NFTA_LOOKUP_DREG, NFT_REG_1)?,
                        text(NFTA_LOOKUP_SET, map)?,
                    ],
                )?;
                let mut payload = vec![
                    number(NFTA_PAYLOAD_SREG, NFT_REG_1)?,
                    number(NFTA_PAYLOAD_BASE, base)?,
                    number(NFTA_PAYLOAD_OFFSET, offset)?,
                    number(NFTA_PAYLOAD_LEN, u32::try_from(layout(field.datatype()).1)?)?,
                ];
                for (kind, value) in checksums {
                    payload.push(number(*kind, *value)?);
                }
                self.push("payload", payload)
            }
            Statement::WriteBits { field, mask, value } => {
                let (Source::Meta(key), Value::Mark(_), Value::Mark(_)) = (locate(*field).0, mask, value) else {
                    bail!("{field} cannot be written in part: expected meta mark");
                };
                self.load(*field, layout(field.datatype()).1, NFT_REG_1)?;
                self.bitwise(NFT_REG_1, &bytes(&mask.inverted()), &bytes(&value.masked(mask)))?;
                self.push("meta", vec![number(NFTA_META_KEY, key)?, number(NFTA_META_SREG, NFT_REG_1)?])
            }
            Statement::Counter => self.push("counter", Vec::new()),
            Statement::Accept => self.verdict(NF_ACCEPT, None),
            Statement::Drop => self.verdict(NF_DROP, None),
            Statement::Return => self.verdict(NFT_RETURN, None),
            Statement::Jump(chain) => self.verdict(NFT_JUMP, Some(chain)),
            Statement::Goto(chain) => self.verdict(NFT_GOTO, Some(chain)),
        }
    }

    fn push(&mut self, name: &str, attributes: Vec<Attribute>) -> Result<()> {
        self.expressions.push(expression(NFTA_LIST_ELEM, name, attributes)?);
        Ok(())
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) -> Result<()> {
        let mut verdict = vec![number(NFTA_VERDICT_CODE, code.cast_unsigned())?];
        if let Some(chain) = chain {
            verdict.push(text(NFTA_VERDICT_CHAIN, chain)?);
        }
        let verdict = nested(NFTA_DATA_VERDICT, verdict)?;
        self.push(
            "immediate",
            vec![number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT)?, nested(NFTA_IMMEDIATE_DATA, vec![verdict])?],
        )
    }

    /// Puts the comparisons in front that make sure of `header`, unless the rule already did.
    fn require(&mut self, header: Header) -> Result<()> {
        for (field, value) in dependencies(self.family, header)? {
            // Either of the two EtherTypes tells a bridge what a frame carries.
            let told = |(known, found): &(Field, Value)| match (field, header) {
                (Field::Protocol, _) | (Field::EtherType, Header::BehindIp6(_)) => {
                    matches!(known, Field::Protocol | Field::EtherType) && *found == value
                }
                _ => *known == field && *found == value,
            };
            if !self.known.iter().any(told) {
                self.compare(&field.into(), Equality::Equal, &value)?;
            }
        }
        Ok(())
    }

    /// Compares a field with a constant. A prefix of whole bytes needs no mask: only they are loaded.
    fn compare(&mut self, selector: &Selector, equality: Equality, value: &Value) -> Result<()> {
        let field = selector.field;
        let (_, header) = locate(field);
        ensure!(
            value.datatype() == field.datatype(),
            "{field} is compared with {value}, expected a value of type {}",
            field.datatype()
        );
        self.require(header)?;
        let wanted = match &selector.mask {
            Some(mask) => value.masked(mask),
            None => value.clone(),
        };
        let mut wanted = bytes(&wanted);
        let whole_bytes =
            selector.mask.as_ref().and_then(Value::prefix_length).filter(|bits| *bits > 0 && bits % 8 == 0);
        match whole_bytes {
            Some(bits) => {
                wanted.truncate(usize::try_from(bits / 8)?);
                self.load(field, wanted.len(), NFT_REG_1)?;
            }
            None => self.load_masked(selector, NFT_REG_1)?,
        }
        let operator = match equality {
            Equality::Equal => NFT_CMP_EQ,
            Equality::NotEqual => NFT_CMP_NEQ,
        };
        self.push(
            "cmp",
            vec![number(NFTA_CMP_SREG, NFT_REG_1)?, number(NFTA_CMP_OP, operator)?, data(NFTA_CMP_DATA, &wanted)?],
        )?;
        if selector.mask.is_none() && equality == Equality::Equal {
            self.known.push((field, value.clone()));
        }
        Ok(())
    }

    /// Loads fields side by side, each at the next multiple of 32 bits, from the first register on.
    fn load_all(&mut self, selectors: &[Selector]) -> Result<()> {
        for selector in selectors {
            self.require(locate(selector.field).1)?;
        }
        let mut words = 0;
        for selector in selectors {
            // A register of 128 bits where one begins here, as nft numbers them, else one of 32.
            let register = if words % 4 == 0 { NFT_REG_1 + words / 4 } else { NFT_REG32_00 + words };
            self.load_masked(selector, register)?;
            words += u32::try_from(layout(selector.field.datatype()).1.div_ceil(4))?;
        }
        ensure!(words <= 16, "{words} words are looked up together, expected 16 at most");
        Ok(())
    }

    fn load_masked(&mut self, selector: &Selector, register: u32) -> Result<()> {
        let length = layout(selector.field.datatype()).1;
        self.load(selector.field, length, register)?;
        let Some(mask) = &selector.mask else { return Ok(()) };
        ensure!(
            mask.datatype() == selector.field.datatype(),
            "{selector}: expected a mask of type {}",
            selector.field.datatype()
        );
        self.mask(register, &bytes(mask))
    }

    /// Clears the bits of a register that `mask` lacks.
    fn mask(&mut self, register: u32, mask: &[u8]) -> Result<()> {
        self.bitwise(register, mask, &vec![0; mask.len()])
    }

    /// Keeps the bits of a register that `mask` has, then turns over those that `xor` has.
    fn bitwise(&mut self, register: u32, mask: &[u8], xor: &[u8]) -> Result<()> {
        self.push(
            "bitwise",
            vec![
                number(NFTA_BITWISE_SREG, register)?,
                number(NFTA_BITWISE_DREG, register)?,
                number(NFTA_BITWISE_LEN, u32::try_from(mask.len())?)?,
                data(NFTA_BITWISE_MASK, mask)?,
                data(NFTA_BITWISE_XOR, xor)?,
            ],
        )
    }

    /// Loads the first `length` bytes of a field.
    fn load(&mut self, field: Field, length: usize, register: u32) -> Result<()> {
        match locate(field).0 {
            Source::Meta(key) => {
                self.push("meta", vec![number(NFTA_META_KEY, key)?, number(NFTA_META_DREG, register)?])
            }
            Source::Fib(flags, result) => self.push(
                "fib",
                vec![
                    number(NFTA_FIB_FLAGS, flags)?,
                    number(NFTA_FIB_RESULT, result)?,
                    number(NFTA_FIB_DREG, register)?,
                ],
            ),
            Source::Payload(base, offset) => self.push(
                "payload",
                vec![
                    number(NFTA_PAYLOAD_DREG, register)?,
                    number(NFTA_PAYLOAD_BASE, base)?,
                    number(NFTA_PAYLOAD_OFFSET, offset)?,
                    number(NFTA_PAYLOAD_LEN, u32::try_from(length)?)?,
                ],
            ),
            Source::Extension(header, offset, bits) => {
                self.extension(header, offset, length, 0, register)?;
                self.mask(register, &bits)
            }
            Source::HasExtension(header) => self.extension(header, 0, length, NFT_EXTHDR_F_PRESENT, register),
        }
    }

    fn extension(&mut self, header: u8, offset: u32, length: usize, flags: u32, register: u32) -> Result<()> {
        self.push(
            "exthdr",
            vec![
                number(NFTA_EXTHDR_DREG, register)?,
                attribute(NFTA_EXTHDR_TYPE, &[header])?,
                number(NFTA_EXTHDR_OFFSET, offset)?,
                number(NFTA_EXTHDR_LEN, u32::try_from(length)?)?,
                number(NFTA_EXTHDR_OP, NFT_EXTHDR_OP_IPV6)?,
                number(NFTA_EXTHDR_FLAGS, flags)?,
            ],
        )
    }
}
