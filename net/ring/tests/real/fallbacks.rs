//! Older kernels and forbidden ones: each feature switched off, io_uring refused.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{
    Cores, Features, File, ListenOptions, OpenOptions, RingConfig, Shutdown, TcpListener,
    TcpStream, fs, now, probe, run, sleep, spawn, timeout,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::{alone, any, echo, folder, pattern};

async fn files(dir: &std::path::Path) {
    let options = OpenOptions::new().read(true).write(true).create(true);
    let file = File::open(dir.join("f"), options).await.unwrap();
    let content = pattern(300_000, 1);
    file.write_at_sync(0, vec![content.slice(..7), content.slice(7..)])
        .await
        .unwrap();
    file.set_len(200_000).await.unwrap();
    file.allocate(0, 1 << 20).await.unwrap();
    file.set_len(200_000).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 200_000);
    assert!(file.read_at(0, 1 << 20).await.unwrap() == content[..200_000]);
    assert_eq!(fs::read_dir(dir).await.unwrap().len(), 1);
}

async fn streams(dir: &std::path::Path) {
    let listener = TcpListener::bind(any(), ListenOptions::default())
        .await
        .unwrap();
    let connecting = spawn(TcpStream::connect(listener.local_addr().unwrap()));
    let (server, _) = listener.accept().await.unwrap();
    let client = connecting.await.unwrap().unwrap();
    spawn(echo(server));
    let sent = pattern(2 << 20, 2);
    std::fs::write(dir.join("sent"), &sent).unwrap();
    let file = File::open(dir.join("sent"), OpenOptions::new().read(true))
        .await
        .unwrap();
    let sender = client.clone();
    spawn(async move {
        sender
            .send(vec![Bytes::from_static(b"head")])
            .await
            .unwrap();
        sender.send_file(&file, 0, 2 << 20).await.unwrap();
        sender.shutdown(Shutdown::Write).await.unwrap();
    });
    let mut back = BytesMut::new();
    while client.recv(&mut back).await.unwrap() > 0 {}
    assert_eq!(&back[..4], b"head");
    assert!(back[4..] == sent);
    // Time-outs and cancellation.
    let waited = timeout(Duration::from_millis(5), listener.accept()).await;
    assert!(waited.is_err());
}

/// Two cores that sleep between messages must wake each other.
fn messages(config: RingConfig) {
    let cores = Cores::new(2);
    let ports = cores.mesh::<u32>(4).into_iter().enumerate();
    let ports = std::sync::Mutex::new(ports.collect::<BTreeMap<_, _>>());
    let running = cores.launch(config, move |id| {
        let port = Rc::new(ports.lock().unwrap().remove(&id).unwrap());
        async move {
            let begun = now();
            for i in 0..200 {
                if id == 0 {
                    port.send(1, i).await;
                }
                assert_eq!(port.recv().await.1, i);
                if id == 1 {
                    // The other core is asleep by now, most of the time.
                    sleep(Duration::from_micros(u64::from(i))).await;
                    port.send(0, i).await;
                }
            }
            now() - begun
        }
    });
    for took in running.unwrap().join().unwrap() {
        assert!(took < Duration::from_secs(20), "wakes came late: {took:?}");
    }
}

fn everything(name: &str, features: Features) {
    let dir = folder(&format!("without-{name}"));
    let config = RingConfig {
        pin: false,
        features,
        ..RingConfig::default()
    };
    run(config, async {
        files(&dir).await;
        streams(&dir).await;
    })
    .unwrap();
    messages(config);
}

#[test]
fn each_feature_has_a_fallback() {
    let all = Features::ALL;
    everything("nothing", all);
    everything(
        "deferral",
        Features {
            defer_taskrun: false,
            ..all
        },
    );
    everything(
        "bundles",
        Features {
            recv_bundle: false,
            ..all
        },
    );
    everything(
        "messages",
        Features {
            msg_ring: false,
            ..all
        },
    );
    everything(
        "registered",
        Features {
            registered_files: false,
            ..all
        },
    );
    everything(
        "splice",
        Features {
            splice: false,
            ..all
        },
    );
    everything(
        "ftruncate",
        Features {
            ftruncate: false,
            ..all
        },
    );
}

#[test]
fn linux_6_1_is_enough() {
    let old = Features {
        recv_bundle: false,
        ftruncate: false,
        ..Features::ALL
    };
    everything("anything-new", old);
    let least = Features {
        defer_taskrun: false,
        recv_bundle: false,
        msg_ring: false,
        registered_files: false,
        splice: false,
        ftruncate: false,
        zero_copy: false,
    };
    everything("anything", least);
}

/// Forbids one system call to this thread, as a container's profile does.
fn forbid(call: i64, errno: i32) {
    let filter = SeccompFilter::new(
        BTreeMap::from([(call, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[test]
fn a_container_that_forbids_io_uring_is_told_how_to_allow_it() {
    let name = "fallbacks::a_container_that_forbids_io_uring_is_told_how_to_allow_it";
    alone(name, || {
        forbid(libc::SYS_io_uring_setup, libc::EPERM);
        let refused = probe().unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
        let text = refused.to_string();
        for word in [
            "cannot start io_uring",
            "seccomp",
            "io_uring_setup",
            "--security-opt",
        ] {
            assert!(text.contains(word), "{text}");
        }
        let running = Cores::new(2).launch(RingConfig::default(), |_| async {});
        assert_eq!(running.unwrap().join().unwrap_err().to_string(), text);
    });
}

#[test]
fn a_profile_that_forbids_half_of_io_uring_is_told_the_same() {
    let name = "fallbacks::a_profile_that_forbids_half_of_io_uring_is_told_the_same";
    alone(name, || {
        forbid(libc::SYS_io_uring_register, libc::EPERM);
        let text = probe().unwrap_err().to_string();
        assert!(
            text.contains("seccomp") && text.contains("io_uring_register"),
            "{text}"
        );
    });
}

#[test]
fn a_kernel_without_io_uring_is_told_which_has_it() {
    let name = "fallbacks::a_kernel_without_io_uring_is_told_which_has_it";
    alone(name, || {
        forbid(libc::SYS_io_uring_setup, libc::ENOSYS);
        let text = probe().unwrap_err().to_string();
        assert!(text.contains("Linux 6.1 or newer"), "{text}");
    });
}
