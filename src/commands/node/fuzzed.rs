//! What `node` is asked for, up to where the kernel would be asked.

use std::ffi::OsString;

use anyhow::{Context, Result};

use super::uplink_args::UplinkArgs;
use super::{Wanted, bridges, ifupdown, read};
use crate::environment::IfupdownUplink;
use crate::object::{Plan, Verb};
use crate::settings::Settings;
use crate::setup::{Original, uplink};

pub(in crate::commands) fn words(arguments: &[OsString]) -> Result<()> {
    match read(arguments)? {
        Wanted::Bridges(Some((_, asked))) => check(&asked.plan()),
        Wanted::Uplink(verb, Some(asked)) => planned(verb, &asked)?,
        Wanted::Help | Wanted::Guard | Wanted::Bridges(None) | Wanted::Uplink(_, None) => {}
    }
    Ok(())
}

pub(in crate::commands) fn helper(words: &[OsString]) -> Result<()> {
    check(&bridges::BridgesArgs::by_words(words)?.1.plan());
    Ok(())
}

pub(in crate::commands) fn ifupdown(raw: &IfupdownUplink) -> Result<()> {
    ifupdown::of(raw)?.map_or(Ok(()), |asked| planned(Verb::Add, &asked))
}

fn planned(verb: Verb, asked: &UplinkArgs) -> Result<()> {
    let device = asked.device.clone().context("no device")?;
    asked.check(verb)?;
    for family in asked.families(verb) {
        check(&uplink::plan(&asked.uplink(&device, family, &Settings::default())?, &Original::default()));
    }
    Ok(())
}

fn check(plan: &Plan) {
    let text = plan.to_string();
    assert!(text.chars().all(|it| !it.is_control() || it == '\n' || it == '\t'), "{text:?}");
}
