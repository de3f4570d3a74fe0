//! Tells the program which version of the library it is built with: the lock file's.

fn main() {
    println!("cargo:rerun-if-changed=Cargo.lock");
    let lock = std::fs::read_to_string("Cargo.lock").expect("read Cargo.lock");
    let version = lock
        .split("[[package]]")
        .find(|p| p.contains("name = \"rdkafka\"\n"))
        .and_then(|p| p.lines().find_map(|l| l.strip_prefix("version = ")))
        .expect("find rdkafka in Cargo.lock");
    println!("cargo:rustc-env=RDKAFKA_VERSION={}", version.trim_matches('"'));
}
