//! `include/virnetdevtap.h` is what cbindgen makes of the sources, and C and C++ compilers take it.

#![allow(clippy::expect_used, clippy::panic, clippy::arithmetic_side_effects)] // a test may

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use cbindgen::{Builder, Config};

const HEADER: &str = "include/virnetdevtap.h";
const UPDATE: &str = "VIRNETDEVTAP_BLESS=1 cargo test --test header";
const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the sources say now; written down first if that was asked for.
static MADE: LazyLock<String> = LazyLock::new(|| {
    let made = generate();
    if std::env::var_os("VIRNETDEVTAP_BLESS").is_some() {
        std::fs::write(root().join(HEADER), &made).expect("the header can be written");
    }
    made
});

fn run_cbindgen(config: Config) -> String {
    let bindings = Builder::new()
        .with_crate(root())
        .with_config(config)
        .with_only_target_dependencies(true)
        .generate()
        .expect("cbindgen reads the crate");
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).expect("the header is UTF-8")
}

/// The types that libvirt has too (`export.exclude`) come first, in one block that a macro leaves out.
fn generate() -> String {
    let config = Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml is right");

    let functions = std::fs::read_to_string(root().join("virnetdevtap.syms")).expect("the list of exports is there");
    let mut types = config.clone();
    types.export.include = std::mem::take(&mut types.export.exclude);
    types.export.include.retain(|name| !types.export.rename.contains_key(name)); // those are there under their new name
    types.export.exclude = functions.lines().map(String::from).chain(types.export.rename.keys().cloned()).collect();
    types.header = None;
    types.include_guard = None;
    types.sys_includes.clear();
    types.after_includes = None;
    let types = run_cbindgen(types);

    let mut rest = config;
    let macros = rest.after_includes.take().unwrap_or_default();
    rest.after_includes = Some(format!(
        "{macros}\n\
         /* Define VIR_NETDEV_TAP_LIBVIRT_TYPES to use this beside libvirt's own headers, which have these types. */\n\
         #ifndef VIR_NETDEV_TAP_LIBVIRT_TYPES\n\n{}\n\n#endif /* VIR_NETDEV_TAP_LIBVIRT_TYPES */\n",
        types.trim()
    ));
    finish(&run_cbindgen(rest))
}

/// Takes out what concerns Rust callers only, and the blank lines that cbindgen's directives leave.
fn finish(raw: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut in_safety = false;
    for line in raw.lines() {
        let line = line.trim_end();
        if line.trim_start().starts_with("* # Safety") {
            in_safety = true;
        }
        if line.ends_with("*/") {
            in_safety = false;
            while out.last().is_some_and(|last| last.trim() == "*") {
                out.pop();
            }
        }
        let repeated_blank = line.is_empty() && out.last().is_some_and(String::is_empty);
        if in_safety || repeated_blank {
            continue;
        }
        match out.as_slice() {
            // a member's comment of one line
            [.., open, text] if line == "     */" && open == "    /**" => {
                let short = text.replacen("     * ", "    /** ", 1) + " */";
                out.truncate(out.len() - 2);
                out.push(short);
            }
            _ => out.push(line.to_owned()),
        }
    }
    let mut text = out.join("\n").trim_start().replace('`', "");
    text = text.replace("\nVIR_NETDEV_TAP_", "\n    VIR_NETDEV_TAP_");
    text.push('\n');
    text
}

fn compile(compiler: &str, arguments: &[&str], source: &str) -> Option<Output> {
    LazyLock::force(&MADE);
    let child = Command::new(compiler)
        .args(arguments)
        .args(WARNINGS)
        .arg("-I")
        .arg(root().join("include"))
        .args(["-o", "/dev/null", "-c", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            println!("SKIP: {compiler}: {error}");
            return None;
        }
    };
    child.stdin.take().expect("stdin is a pipe").write_all(source.as_bytes()).expect("the compiler reads");
    Some(child.wait_with_output().expect("the compiler ends"))
}

fn assert_compiles(compiler: &str, arguments: &[&str], source: &str) {
    if let Some(output) = compile(compiler, arguments, source) {
        assert!(output.status.success(), "{compiler} {arguments:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn assert_refused(source: &str, why: &str) {
    if let Some(output) = compile("gcc", &["-x", "c", "-std=gnu17"], source) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "gcc takes:\n{source}");
        assert!(said.contains(why), "gcc says nothing of {why}:\n{said}");
    }
}

#[test]
fn header_is_what_cbindgen_makes_of_the_sources() {
    let made = MADE.as_str();
    let there = std::fs::read_to_string(root().join(HEADER)).unwrap_or_default();
    if made != there {
        let line = made
            .lines()
            .zip(there.lines())
            .position(|(new, old)| new != old)
            .unwrap_or_else(|| made.lines().count().min(there.lines().count()));
        panic!(
            "{HEADER} differs from the sources from line {} on:\n  there: {:?}\n  made:  {:?}\n\
             To update it: {UPDATE}",
            line + 1,
            there.lines().nth(line),
            made.lines().nth(line),
        );
    }
}

#[test]
fn header_stands_alone_in_c() {
    for std in ["-std=c99", "-std=c11", "-std=gnu17"] {
        assert_compiles("gcc", &["-x", "c", std], "#include <virnetdevtap.h>\n");
    }
}

#[test]
fn header_stands_alone_in_cpp() {
    assert_compiles("g++", &["-x", "c++", "-std=c++17"], "#include <virnetdevtap.h>\n#include <virnetdevtap.h>\n");
}

#[test]
fn header_leaves_libvirts_types_to_libvirt() {
    let libvirt = "\
        #include <stdbool.h>\n\
        typedef struct _virMacAddr { unsigned char addr[6]; } virMacAddr;\n\
        typedef struct _virNetDevVPortProfile virNetDevVPortProfile;\n\
        typedef struct _virNetDevVlan virNetDevVlan;\n\
        typedef struct _virNetDevCoalesce virNetDevCoalesce;\n\
        typedef struct _virDomainInterfaceStats virDomainInterfaceStatsStruct;\n\
        typedef virDomainInterfaceStatsStruct *virDomainInterfaceStatsPtr;\n\
        typedef enum { VIR_TRISTATE_BOOL_ABSENT, VIR_TRISTATE_BOOL_YES, VIR_TRISTATE_BOOL_NO } virTristateBool;\n\
        typedef enum { VIR_NETDEV_TAP_CREATE_IFUP = 1 << 0 } virNetDevTapCreateFlags;\n";
    assert_compiles(
        "gcc",
        &["-x", "c", "-std=gnu17"],
        &format!("{libvirt}#define VIR_NETDEV_TAP_LIBVIRT_TYPES\n#include <virnetdevtap.h>\n"),
    );
    assert_refused(&format!("{libvirt}#include <virnetdevtap.h>\n"), "virMacAddr");
}

#[test]
fn header_warns_of_misuse() {
    assert_refused(
        "#include <virnetdevtap.h>\nvoid f(int *fd) { char *name = 0; virNetDevTapCreate(&name, 0, fd, 1, 0); }\n",
        "unused-result",
    );
    assert_refused("#include <virnetdevtap.h>\nint f(int *fd) { return virNetDevTapCreate(0, 0, fd, 1, 0); }\n", "nonnull");
}

#[test]
fn header_speaks_to_c_callers() {
    for word in ["# Safety", "unsafe", "Rust ", "Option<", "Result<", "::", "[`", "`]", "&str"] {
        assert!(!MADE.contains(word), "the header has {word:?}");
    }
    for (number, line) in MADE.lines().enumerate() {
        assert!(line.chars().count() <= 130, "line {} is {} long", number + 1, line.len());
    }
}

#[test]
fn header_declares_what_is_exported() {
    let mut declared: Vec<&str> = MADE
        .lines()
        .filter(|line| !line.starts_with([' ', '/', '#']) && !line.starts_with("typedef"))
        .filter_map(|line| line.split_once('('))
        .filter_map(|(head, _)| head.rsplit([' ', '*']).next())
        .collect();
    declared.sort_unstable();
    let listed = std::fs::read_to_string(root().join("virnetdevtap.syms")).expect("the list of exports is there");
    assert_eq!(declared, listed.lines().collect::<Vec<_>>());
}
