//! The services that the crate brings along: health and reflection.

use std::cell::RefCell;
use std::rc::Rc;

use futures_util::stream;
use prost::Message;
use ringmill_ring::sleep;
use ringmill_rpc::{
    ChannelOptions, HEALTH_DESCRIPTORS, Health, Reflection, Router, ServerOptions, ServingStatus,
    interop,
};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::world::{Lab, SECOND, channel};

fn ask(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

/// Serves health, and hands its handle out.
fn healthy(lab: &mut Lab) -> Rc<RefCell<Option<Health>>> {
    let handle = Rc::new(RefCell::new(None));
    let kept = handle.clone();
    lab.serve(ServerOptions::default(), move || {
        let health = Health::new();
        *kept.borrow_mut() = Some(health.clone());
        Router::new().service(health.server())
    });
    handle
}

#[test]
fn health_is_told_when_asked_and_when_it_changes() {
    let mut lab = Lab::new(1);
    let health = healthy(&mut lab);
    let watched = lab.world.start(lab.client, async {
        let mut client = HealthClient::new(channel(ChannelOptions::default()));
        let whole = client.check(ask("")).await.unwrap().into_inner();
        assert_eq!(whole.status(), ServingStatus::Serving);
        let unknown = client.check(ask("shop.Orders")).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);
        let watch = client.watch(ask("shop.Orders")).await.unwrap();
        let mut watch = watch.into_inner();
        let mut told = Vec::new();
        while told.len() < 4 {
            told.push(watch.message().await.unwrap().unwrap().status());
        }
        told
    });
    let change = |lab: &mut Lab, change: &dyn Fn(&Health)| {
        lab.world.run_for(SECOND);
        change(health.borrow().as_ref().unwrap());
    };
    change(&mut lab, &|h| h.set("shop.Orders", ServingStatus::Serving));
    // What stays the same is not told again.
    change(&mut lab, &|h| h.set("shop.Orders", ServingStatus::Serving));
    change(&mut lab, &|h| h.set("another", ServingStatus::Serving));
    change(&mut lab, &Health::shut_down);
    change(&mut lab, &|h| h.clear("shop.Orders"));
    lab.world.run_for(SECOND);
    assert_eq!(
        watched.take().concat(),
        [
            ServingStatus::ServiceUnknown,
            ServingStatus::Serving,
            ServingStatus::NotServing,
            ServingStatus::ServiceUnknown
        ]
    );
}

fn reflecting(lab: &mut Lab) {
    lab.serve(ServerOptions::default(), || {
        let reflection = Reflection::new(&[interop::DESCRIPTORS, HEALTH_DESCRIPTORS]).unwrap();
        Router::new()
            .service(reflection.server())
            .service(reflection.server_v1alpha())
    });
}

fn question(message: v1::server_reflection_request::MessageRequest) -> v1::ServerReflectionRequest {
    v1::ServerReflectionRequest {
        host: "here".into(),
        message_request: Some(message),
    }
}

#[test]
fn tools_find_services_and_their_files() {
    use v1::server_reflection_request::MessageRequest as Ask;
    use v1::server_reflection_response::MessageResponse as Told;
    let mut lab = Lab::new(2);
    reflecting(&mut lab);
    lab.call(async {
        let channel = channel(ChannelOptions::default());
        let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
        let questions = stream::iter([
            question(Ask::ListServices(String::new())),
            question(Ask::FileContainingSymbol(
                "grpc.testing.TestService.UnaryCall".into(),
            )),
            question(Ask::FileByFilename("nobody.proto".into())),
            v1::ServerReflectionRequest::default(),
        ]);
        let answers = client.server_reflection_info(questions).await.unwrap();
        let mut answers = answers.into_inner();
        let mut told = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            told.push(answer.message_response.unwrap());
        }
        let [
            Told::ListServicesResponse(list),
            Told::FileDescriptorResponse(files),
            unknown,
            none,
        ] = &told[..]
        else {
            panic!("{told:?}");
        };
        let names: Vec<_> = list.service.iter().map(|service| &*service.name).collect();
        assert!(names.contains(&"grpc.testing.TestService"), "{names:?}");
        assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
        // The file, and the two that it imports.
        assert_eq!(files.file_descriptor_proto.len(), 3);
        let code = |told: &Told| match told {
            Told::ErrorResponse(error) => Code::from(error.error_code),
            other => panic!("{other:?}"),
        };
        assert_eq!(code(unknown), Code::NotFound);
        assert_eq!(code(none), Code::InvalidArgument);
    });
}

#[test]
fn older_tools_are_told_the_same() {
    let mut lab = Lab::new(3);
    reflecting(&mut lab);
    lab.call(async {
        let channel = channel(ChannelOptions::default());
        let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
        let asked = question(
            v1::server_reflection_request::MessageRequest::FileContainingSymbol(
                "grpc.testing.SimpleRequest".into(),
            ),
        );
        let asked = v1alpha::ServerReflectionRequest::decode(&*asked.encode_to_vec()).unwrap();
        let answers = client
            .server_reflection_info(stream::iter([asked.clone()]))
            .await;
        let mut answers = answers.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.original_request, Some(asked));
        let v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(files) =
            answer.message_response.unwrap()
        else {
            panic!("no file");
        };
        let file = prost_types::FileDescriptorProto::decode(&*files.file_descriptor_proto[0]);
        assert_eq!(file.unwrap().name(), "grpc/testing/messages.proto");
    });
}

/// A watcher that goes leaves nothing behind, and one that stays is told of the drain.
#[test]
fn a_watch_ends_with_its_server() {
    let mut lab = Lab::new(4);
    healthy(&mut lab);
    let ended = lab.world.start(lab.client, async {
        let mut client = HealthClient::new(channel(ChannelOptions::default()));
        let gone = client.watch(ask("")).await.unwrap();
        drop(gone);
        let watch = client.watch(ask("")).await.unwrap();
        let mut watch = watch.into_inner();
        let first = watch.message().await.unwrap().unwrap().status();
        sleep(SECOND).await;
        (first, watch.message().await.map(drop))
    });
    lab.world.run_for(5 * SECOND);
    lab.stop.notify_one();
    lab.world.run_for(60 * SECOND);
    let (first, ended) = ended.take().pop().unwrap();
    assert_eq!(first, ServingStatus::Serving);
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    assert!(!lab.world.is_running(lab.server));
}
