//! The vocabulary of nf_tables as data: tables, sets, chains, rules, elements. Displayed, it is nft's own syntax.
