//! What the linker is told of the static build that users install.

use std::env;

const UNWINDING: &str = "no-unwind-tables.ld";
const FUNCTIONS: &str = "functions.ld";

fn main() {
    for name in [UNWINDING, FUNCTIONS] {
        println!("cargo::rerun-if-changed=packaging/{name}");
    }
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|it| it == value);
    if !is("CARGO_CFG_TARGET_ENV", "musl") {
        return;
    }
    let script = |name: &str| tell(&format!("-T{}/packaging/{name}", env!("CARGO_MANIFEST_DIR")));
    // A panic aborts, so nothing tells how to unwind.
    script(UNWINDING);
    tell("-Wl,--no-eh-frame-hdr");
    // Relocations are packed.
    tell("-Wl,-z,pack-relative-relocs");
    // Without optimization there are so many functions that finding those by their names takes half a minute.
    if is("PROFILE", "release") {
        script(FUNCTIONS);
    }
}

fn tell(argument: &str) {
    println!("cargo::rustc-link-arg={argument}");
}
