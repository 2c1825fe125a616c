//! Create a topic, change its settings, look at topics and groups.
//!
//! `cargo run -p ringmill-client --example admin -- 127.0.0.1:9092 flights`

use ringmill_client::{Admin, AdminError, ConfigChange, ErrorCode, NewTopic};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let bootstrap = args.next().unwrap_or_else(|| "127.0.0.1:9092".into());
    let name = args.next().unwrap_or_else(|| "flights".into());

    let admin = Admin::builder()
        .set("bootstrap.servers", bootstrap)
        .connect()
        .await?;
    let cluster = admin.cluster().await?;
    println!(
        "cluster {} has {} brokers",
        cluster.cluster_id,
        cluster.brokers.len()
    );

    let topic = NewTopic::of(&name, 3).config("retention.ms", 7 * 24 * 3_600_000_u64);
    match admin.create_topic(topic).await {
        Ok(topic) => println!(
            "made {} with {} partitions",
            topic.name,
            topic.partitions.len()
        ),
        Err(AdminError::Refused {
            code: ErrorCode::TopicAlreadyExists,
            ..
        }) => {
            println!("{name} is there already");
        }
        Err(error) => return Err(error.into()),
    }
    let change = ConfigChange::Set("max.message.bytes".into(), "2000000".into());
    admin.alter_topic(&name, vec![change]).await?;
    for entry in admin.topic_configs(&name).await? {
        println!("{} = {:?} ({:?})", entry.name, entry.value, entry.source);
    }
    for topic in admin.topics().await? {
        println!(
            "topic {}: {} partitions",
            topic.name,
            topic.partitions.len()
        );
    }
    for group in admin.groups().await? {
        println!("group {}: {}", group.group, group.state);
    }
    Ok(())
}
