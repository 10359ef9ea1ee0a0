//! Numbers of nfnetlink and nf_tables that we use, each from the kernel header named above it.

// linux/netfilter/nfnetlink.h
pub(super) const NFNETLINK_V0: u8 = 0;
pub(super) const NFNL_SUBSYS_NFTABLES: u16 = 10;
pub(super) const NFNL_MSG_BATCH_BEGIN: u16 = 16;
pub(super) const NFNL_MSG_BATCH_END: u16 = 17;
pub(super) const NFNL_BATCH_GENID: u16 = 1;

// linux/netfilter.h: families, hooks, verdicts
pub(super) const NFPROTO_UNSPEC: u8 = 0;
pub(super) const NFPROTO_INET: u8 = 1;
pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_ARP: u8 = 3;
pub(super) const NFPROTO_BRIDGE: u8 = 7;
pub(super) const NFPROTO_IPV6: u8 = 10;
pub(super) const NF_INET_PRE_ROUTING: u32 = 0;
pub(super) const NF_INET_LOCAL_IN: u32 = 1;
pub(super) const NF_INET_FORWARD: u32 = 2;
pub(super) const NF_INET_LOCAL_OUT: u32 = 3;
pub(super) const NF_INET_POST_ROUTING: u32 = 4;
pub(super) const NF_DROP: i32 = 0;
pub(super) const NF_ACCEPT: i32 = 1;

// linux/netfilter_arp.h
pub(super) const NF_ARP_IN: u32 = 0;
pub(super) const NF_ARP_OUT: u32 = 1;

// linux/in.h, linux/in6.h
pub(super) const IPPROTO_ICMP: u8 = 1;
pub(super) const IPPROTO_TCP: u8 = 6;
pub(super) const IPPROTO_UDP: u8 = 17;
pub(super) const IPPROTO_FRAGMENT: u8 = 44;
pub(super) const IPPROTO_ICMPV6: u8 = 58;

// linux/if_ether.h, linux/if_arp.h
pub(super) const ETH_P_IP: u16 = 0x0800;
pub(super) const ETH_P_ARP: u16 = 0x0806;
pub(super) const ETH_P_IPV6: u16 = 0x86dd;
pub(super) const ARPHRD_ETHER: u16 = 1;

// linux/netfilter/nf_tables.h: enum nf_tables_msg_types
const fn message(number: u16) -> u16 {
    NFNL_SUBSYS_NFTABLES << 8 | number
}
pub(super) const NFT_MSG_NEWTABLE: u16 = message(0);
pub(super) const NFT_MSG_NEWCHAIN: u16 = message(3);
pub(super) const NFT_MSG_GETCHAIN: u16 = message(4);
pub(super) const NFT_MSG_DELCHAIN: u16 = message(5);
pub(super) const NFT_MSG_NEWRULE: u16 = message(6);
pub(super) const NFT_MSG_DELRULE: u16 = message(8);
pub(super) const NFT_MSG_NEWSET: u16 = message(9);
pub(super) const NFT_MSG_GETSET: u16 = message(10);
pub(super) const NFT_MSG_NEWSETELEM: u16 = message(12);
pub(super) const NFT_MSG_GETSETELEM: u16 = message(13);
pub(super) const NFT_MSG_DELSETELEM: u16 = message(14);
pub(super) const NFT_MSG_NEWGEN: u16 = message(15);
pub(super) const NFT_MSG_GETGEN: u16 = message(16);

/// The name of a message, for errors.
pub(super) fn operation(message: u16) -> &'static str {
    match message {
        NFNL_MSG_BATCH_BEGIN => "NFNL_MSG_BATCH_BEGIN",
        NFNL_MSG_BATCH_END => "NFNL_MSG_BATCH_END",
        NFT_MSG_NEWTABLE => "NFT_MSG_NEWTABLE",
        NFT_MSG_NEWCHAIN => "NFT_MSG_NEWCHAIN",
        NFT_MSG_GETCHAIN => "NFT_MSG_GETCHAIN",
        NFT_MSG_DELCHAIN => "NFT_MSG_DELCHAIN",
        NFT_MSG_NEWRULE => "NFT_MSG_NEWRULE",
        NFT_MSG_DELRULE => "NFT_MSG_DELRULE",
        NFT_MSG_NEWSET => "NFT_MSG_NEWSET",
        NFT_MSG_GETSET => "NFT_MSG_GETSET",
        NFT_MSG_NEWSETELEM => "NFT_MSG_NEWSETELEM",
        NFT_MSG_GETSETELEM => "NFT_MSG_GETSETELEM",
        NFT_MSG_DELSETELEM => "NFT_MSG_DELSETELEM",
        NFT_MSG_GETGEN => "NFT_MSG_GETGEN",
        _ => "NFT_MSG",
    }
}

// linux/netfilter/nf_tables.h: attributes, in the header's order
pub(super) const NFTA_LIST_ELEM: u16 = 1;
pub(super) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(super) const NFTA_HOOK_PRIORITY: u16 = 2;
pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_TABLE_FLAGS: u16 = 2;
pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
pub(super) const NFTA_CHAIN_POLICY: u16 = 5;
pub(super) const NFTA_CHAIN_USE: u16 = 6;
pub(super) const NFTA_CHAIN_TYPE: u16 = 7;
pub(super) const NFTA_CHAIN_USERDATA: u16 = 12;
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_SET_TABLE: u16 = 1;
pub(super) const NFTA_SET_NAME: u16 = 2;
pub(super) const NFTA_SET_FLAGS: u16 = 3;
pub(super) const NFTA_SET_KEY_TYPE: u16 = 4;
pub(super) const NFTA_SET_KEY_LEN: u16 = 5;
pub(super) const NFTA_SET_DATA_TYPE: u16 = 6;
pub(super) const NFTA_SET_DATA_LEN: u16 = 7;
pub(super) const NFTA_SET_ID: u16 = 10;
pub(super) const NFTA_SET_USERDATA: u16 = 13;
pub(super) const NFTA_SET_EXPR: u16 = 17;
pub(super) const NFT_SET_MAP: u32 = 8;
pub(super) const NFTA_SET_ELEM_KEY: u16 = 1;
pub(super) const NFTA_SET_ELEM_DATA: u16 = 2;
pub(super) const NFTA_SET_ELEM_USERDATA: u16 = 6;
pub(super) const NFTA_SET_ELEM_EXPR: u16 = 7;
pub(super) const NFTA_SET_ELEM_EXPRESSIONS: u16 = 11;
pub(super) const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub(super) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
pub(super) const NFTA_VERDICT_CODE: u16 = 1;
pub(super) const NFTA_VERDICT_CHAIN: u16 = 2;
pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;
pub(super) const NFTA_COUNTER_BYTES: u16 = 1;
pub(super) const NFTA_COUNTER_PACKETS: u16 = 2;
pub(super) const NFTA_IMMEDIATE_DREG: u16 = 1;
pub(super) const NFTA_IMMEDIATE_DATA: u16 = 2;
pub(super) const NFTA_BITWISE_SREG: u16 = 1;
pub(super) const NFTA_BITWISE_DREG: u16 = 2;
pub(super) const NFTA_BITWISE_LEN: u16 = 3;
pub(super) const NFTA_BITWISE_MASK: u16 = 4;
pub(super) const NFTA_BITWISE_XOR: u16 = 5;
pub(super) const NFTA_CMP_SREG: u16 = 1;
pub(super) const NFTA_CMP_OP: u16 = 2;
pub(super) const NFTA_CMP_DATA: u16 = 3;
pub(super) const NFTA_LOOKUP_SET: u16 = 1;
pub(super) const NFTA_LOOKUP_SREG: u16 = 2;
pub(super) const NFTA_LOOKUP_DREG: u16 = 3;
pub(super) const NFTA_LOOKUP_FLAGS: u16 = 5;
pub(super) const NFTA_PAYLOAD_DREG: u16 = 1;
pub(super) const NFTA_PAYLOAD_BASE: u16 = 2;
pub(super) const NFTA_PAYLOAD_OFFSET: u16 = 3;
pub(super) const NFTA_PAYLOAD_LEN: u16 = 4;
pub(super) const NFTA_PAYLOAD_SREG: u16 = 5;
pub(super) const NFTA_PAYLOAD_CSUM_TYPE: u16 = 6;
pub(super) const NFTA_PAYLOAD_CSUM_OFFSET: u16 = 7;
pub(super) const NFTA_PAYLOAD_CSUM_FLAGS: u16 = 8;
pub(super) const NFTA_EXTHDR_DREG: u16 = 1;
pub(super) const NFTA_EXTHDR_TYPE: u16 = 2;
pub(super) const NFTA_EXTHDR_OFFSET: u16 = 3;
pub(super) const NFTA_EXTHDR_LEN: u16 = 4;
pub(super) const NFTA_EXTHDR_FLAGS: u16 = 5;
pub(super) const NFTA_EXTHDR_OP: u16 = 6;
pub(super) const NFTA_FIB_DREG: u16 = 1;
pub(super) const NFTA_FIB_RESULT: u16 = 2;
pub(super) const NFTA_FIB_FLAGS: u16 = 3;
pub(super) const NFTA_META_DREG: u16 = 1;
pub(super) const NFTA_META_KEY: u16 = 2;
pub(super) const NFTA_META_SREG: u16 = 3;
pub(super) const NFTA_GEN_ID: u16 = 1;

// linux/netfilter/nf_tables.h: values
pub(super) const NFT_RETURN: i32 = -5;
pub(super) const NFT_GOTO: i32 = -4;
pub(super) const NFT_JUMP: i32 = -3;
pub(super) const NFT_REG_VERDICT: u32 = 0;
pub(super) const NFT_REG_1: u32 = 1;
pub(super) const NFT_REG32_00: u32 = 8;
pub(super) const NFT_CMP_EQ: u32 = 0;
pub(super) const NFT_CMP_NEQ: u32 = 1;
pub(super) const NFT_LOOKUP_F_INV: u32 = 1;
pub(super) const NFT_PAYLOAD_LL_HEADER: u32 = 0;
pub(super) const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
pub(super) const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
pub(super) const NFT_PAYLOAD_CSUM_INET: u32 = 1;
pub(super) const NFT_PAYLOAD_L4CSUM_PSEUDOHDR: u32 = 1;
pub(super) const NFT_EXTHDR_OP_IPV6: u32 = 0;
pub(super) const NFT_EXTHDR_F_PRESENT: u32 = 1;
pub(super) const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
pub(super) const NFTA_FIB_F_SADDR: u32 = 1 << 0;
pub(super) const NFTA_FIB_F_DADDR: u32 = 1 << 1;
pub(super) const NFTA_FIB_F_IIF: u32 = 1 << 3;
pub(super) const NFTA_FIB_F_OIF: u32 = 1 << 4;
pub(super) const NFT_META_PROTOCOL: u32 = 1;
pub(super) const NFT_META_MARK: u32 = 3;
pub(super) const NFT_META_IIFNAME: u32 = 6;
pub(super) const NFT_META_OIFNAME: u32 = 7;
pub(super) const NFT_META_IIFTYPE: u32 = 8;
pub(super) const NFT_META_NFPROTO: u32 = 15;
pub(super) const NFT_META_L4PROTO: u32 = 16;

// What nft keeps for itself in user data: libnftnl/udata.h, and enum datatypes of nft's include/datatype.h
pub(super) const NFTNL_UDATA_CHAIN_COMMENT: u8 = 0;
pub(super) const NFTNL_UDATA_SET_KEYBYTEORDER: u8 = 0;
pub(super) const NFTNL_UDATA_SET_DATABYTEORDER: u8 = 1;
pub(super) const NFTNL_UDATA_SET_KEY_TYPEOF: u8 = 3;
pub(super) const NFTNL_UDATA_SET_DATA_INTERVAL: u8 = 6;
pub(super) const NFTNL_UDATA_SET_COMMENT: u8 = 7;
pub(super) const NFTNL_UDATA_SET_ELEM_COMMENT: u8 = 0;
pub(super) const NFTNL_UDATA_SET_TYPEOF_EXPR: u8 = 0;
pub(super) const NFTNL_UDATA_SET_TYPEOF_DATA: u8 = 1;
// and, of the same: enum expr_types, enum proto_bases, enums nft_meta_udata_attr and nftnl_payload_udata of src/meta.c
// and src/payload.c
pub(super) const NFTNL_UDATA_META_KEY: u8 = 0;
pub(super) const NFTNL_UDATA_SET_KEY_PAYLOAD_DESC: u8 = 0;
pub(super) const NFTNL_UDATA_SET_KEY_PAYLOAD_TYPE: u8 = 1;
pub(super) const NFTNL_UDATA_SET_KEY_PAYLOAD_BASE: u8 = 2;
pub(super) const NFTNL_UDATA_SET_KEY_PAYLOAD_OFFSET: u8 = 3;
pub(super) const NFTNL_UDATA_SET_KEY_PAYLOAD_LEN: u8 = 4;
pub(super) const PROTO_BASE_NETWORK_HDR: u32 = 2;
pub(super) const PROTO_BASE_TRANSPORT_HDR: u32 = 3;
pub(super) const EXPR_PAYLOAD: u32 = 7;
pub(super) const EXPR_META: u32 = 9;
pub(super) const EXPR_CONCAT: u32 = 13;
pub(super) const TYPE_INTEGER: u32 = 4;
pub(super) const TYPE_INET_SERVICE: u32 = 13;
pub(super) const TYPE_TCP_FLAG: u32 = 15;
pub(super) const TYPE_ICMP_TYPE: u32 = 14;
pub(super) const TYPE_ICMP6_TYPE: u32 = 29;
pub(super) const TYPE_NFPROTO: u32 = 2;
pub(super) const TYPE_IPADDR: u32 = 7;
pub(super) const TYPE_IP6ADDR: u32 = 8;
pub(super) const TYPE_ETHERADDR: u32 = 9;
pub(super) const TYPE_ETHERTYPE: u32 = 10;
pub(super) const TYPE_ARPOP: u32 = 11;
pub(super) const TYPE_INET_PROTOCOL: u32 = 12;
pub(super) const TYPE_MARK: u32 = 19;
pub(super) const TYPE_FIB_ADDR: u32 = 38;
pub(super) const TYPE_ARPHRD: u32 = 21;
pub(super) const TYPE_IFNAME: u32 = 41;
pub(super) const TYPE_BOOLEAN: u32 = 39;
