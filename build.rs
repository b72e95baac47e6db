//! What the dynamic linker reads about the shared library besides its symbols.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // The first number of meson.build's lib_version: changes when an exported signature does.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libvirnetdevtap.so.0");
        // Threads and thread-local destructors of ours may outlive a dlclose.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
