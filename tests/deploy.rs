//! The files under `deploy/`: they are well-formed, agree with each other, and the commands in them run.
//!
//! Each command is run with its own arguments and environment; only places (paths, hosts, ports) become local ones, and
//! `run` becomes `replay` (the same options), so that it ends. So a renamed option or variable breaks a test.

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{drivetrain, one, peers, repository, run};

/// One process of a deployment, as a file says.
struct Process {
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
}

/// What the paths of the deployment are here.
struct Places {
    scratch: tempfile::TempDir,
    input: PathBuf,
}

impl Places {
    /// `files`: what stands in /etc/drivetrain.
    fn new(files: &[(&str, String)]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("etc")).unwrap();
        for (name, text) in files {
            fs::write(scratch.path().join("etc").join(name), text).unwrap();
        }
        let input = scratch.path().join("readings.jsonl");
        run(drivetrain().args(["simulate", "--vehicles", "4", "--for", "5m", "--out"]).arg(&input), 0);
        Self { scratch, input }
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    fn local(&self, text: &str) -> String {
        let etc = self.scratch.path().join("etc");
        let text = text.replace("/etc/drivetrain", &etc.display().to_string());
        text.replace("/var/lib/drivetrain", &self.data().display().to_string())
    }

    fn command(&self, process: &Process, arguments: &[String]) -> Command {
        let mut command = drivetrain();
        command.args(arguments.iter().map(|argument| self.local(argument)));
        command.envs(process.environment.iter().map(|(name, value)| (name, self.local(value))));
        command
    }

    /// Runs the processes as one job, to a good end.
    fn run(&self, processes: &[Process]) {
        let mut children: Vec<Child> = Vec::new();
        for process in processes {
            let (command, options) = process.arguments.split_first().expect("a command");
            assert_eq!(command, "run", "what is deployed is a running job");
            run(self.command(process, &process.arguments).arg("--help"), 0);
            let mut arguments = vec!["replay".to_string()];
            arguments.extend_from_slice(options);
            let mut command = self.command(process, &arguments);
            let child = command.arg(&self.input).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            children.push(child);
        }
        let until = Instant::now() + Duration::from_secs(60);
        while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) && Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        children.iter_mut().for_each(|child| drop(child.kill()));
        for (index, child) in children.into_iter().enumerate() {
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(0), "process {index}: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(one(&self.data(), "select count(*) from trips").parse::<u64>().unwrap() > 0);
    }
}

/// Ports of this machine that nobody uses.
fn ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// Where each process listens, `names` of the hosts in order: every process on this machine, at a port of its own.
fn localize(processes: &mut [Process], names: &[String]) -> String {
    let ports = ports(processes.len());
    for (process, port) in processes.iter_mut().zip(&ports) {
        let listen = process.environment.get_mut("DRIVETRAIN_LISTEN").expect("in a container it listens everywhere");
        let (address, listens) = listen.split_once(':').unwrap();
        assert!(names.iter().all(|name| name.ends_with(&format!(":{listens}"))), "{names:?} and {listen}");
        *listen = format!("{address}:{port}");
    }
    ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().expect("a list").iter();
    items.map(|item| item.as_str().expect("a text").to_string()).collect()
}

fn text(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap()
}

/// What is in the YAML files; None (said loudly) where Python or its YAML is missing.
fn parsed() -> Option<Value> {
    let parsed = peers::script("deploy.py", &[repository("deploy")])?;
    assert_eq!(parsed["lint"], "", "yamllint or kubernetes-validate");
    Some(parsed)
}

/// The instructions of the Dockerfile, continued lines joined: (word, rest).
fn dockerfile() -> Vec<(String, String)> {
    let text = text("deploy/Dockerfile").replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = |line: &str| line.split_once(' ').map(|(word, rest)| (word.to_string(), rest.trim().to_string()));
    lines.map(|line| split(line).expect(line)).collect()
}

fn of<'a>(instructions: &'a [(String, String)], word: &str) -> Vec<&'a str> {
    instructions.iter().filter(|(w, _)| w == word).map(|(_, rest)| rest.as_str()).collect()
}

#[test]
fn the_image_is_what_the_program_needs() {
    let all = dockerfile();
    let start = all.iter().rposition(|(word, _)| word == "FROM").unwrap();
    let (build, image) = all.split_at(start);
    let version = text("Cargo.toml")
        .lines()
        .find_map(|l| l.strip_prefix("rust-version = \"")?.strip_suffix('"').map(str::to_string));
    assert!(of(build, "FROM")[0].starts_with(&format!("rust:{}-", version.unwrap())), "the Rust of the workspace");
    let packages = of(build, "RUN")[0].split("install -y --no-install-recommends").nth(1).unwrap();
    let packages: Vec<&str> = packages.split("&&").next().unwrap().split_whitespace().collect();
    assert_eq!(packages, ["gcc", "g++", "libc6-dev", "make", "perl"]);
    let cargo = of(build, "RUN")[1];
    assert!(cargo.contains("cargo build --release --locked --bin drivetrain"), "{cargo}");
    assert!(text("Cargo.toml").contains("[[bin]]\nname = \"drivetrain\"\n"));
    assert!(of(image, "COPY").contains(&"configs /etc/drivetrain"));
    assert!(of(image, "USER").last().is_some_and(|user| !user.starts_with('0') && !user.starts_with("root")));
    assert!(of(image, "COPY").contains(&"--from=build /drivetrain /usr/local/bin/drivetrain"));
    let json = |word| strings(&serde_json::from_str(of(image, word)[0]).expect("the form that needs no shell"));
    assert_eq!(json("ENTRYPOINT"), ["/usr/local/bin/drivetrain"]);
    let places = Places::new(&[("fleet.toml", text("configs/fleet.toml"))]);
    places.run(&[Process { arguments: json("CMD"), environment: BTreeMap::new() }]);
}

#[test]
fn the_unit_runs() {
    let unit = text("deploy/drivetrain.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let mut words = line.split(' ').map(str::to_string);
    assert_eq!(words.next().as_deref(), Some("/usr/local/bin/drivetrain"));
    let arguments: Vec<String> = words.collect();
    for setting in ["Restart=always", "StartLimitIntervalSec=0", "EnvironmentFile=-/etc/drivetrain/environment"] {
        assert!(unit.lines().any(|line| line == setting), "{setting}");
    }
    let config = ("job.toml", text("configs/fleet.toml"));
    let alone = Process { arguments: arguments.clone(), environment: BTreeMap::new() };
    Places::new(std::slice::from_ref(&config)).run(&[alone]);

    // Several machines, with the variables that the comment at its head names.
    let variable = |name: &str| {
        let line = unit.lines().find_map(|line| line.trim_start_matches(['#', ' ']).strip_prefix(&format!("{name}=")));
        line.expect(name).split(' ').next().unwrap().to_string()
    };
    assert_eq!(
        (variable("DRIVETRAIN_HOSTS").as_str(), variable("DRIVETRAIN_PROCESS").as_str()),
        ("node-0:2101,node-1:2101", "0")
    );
    let hosts = ports(2).iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",");
    let process = |index: usize| {
        let variables = [("DRIVETRAIN_HOSTS", hosts.clone()), ("DRIVETRAIN_PROCESS", index.to_string())];
        let environment = variables.map(|(name, value)| (name.to_string(), value)).into();
        Process { arguments: arguments.clone(), environment }
    };
    Places::new(&[config]).run(&[process(0), process(1)]);

    // systemd's own opinion, where it is at hand.
    let scratch = tempfile::tempdir().unwrap();
    let copy = scratch.path().join("drivetrain.service");
    fs::write(&copy, unit.replace("/usr/local/bin/drivetrain", env!("CARGO_BIN_EXE_drivetrain"))).unwrap();
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let ours: Vec<&str> = said.lines().filter(|line| line.contains("drivetrain.service")).collect();
            assert!(output.status.success() && ours.is_empty(), "systemd-analyze: {said}");
        }
        Err(_) => eprintln!("systemd-analyze is not here: the unit's other lines were not looked at"),
    }
}

#[test]
fn the_compose_file_runs() {
    let Some(parsed) = parsed() else { return };
    let compose = &parsed["compose"];
    let services = compose["services"].as_object().unwrap();
    let build = &services["drivetrain-0"]["build"];
    let context = repository("deploy").join(build["context"].as_str().unwrap());
    assert!(context.join(build["dockerfile"].as_str().unwrap()).is_file(), "{build}");
    let names: Vec<&String> = services.keys().filter(|name| name.starts_with("drivetrain-")).collect();
    let mut processes: Vec<Process> = names.iter().map(|name| of_compose(&services[*name])).collect();
    let hosts: Vec<String> = processes[0].environment["DRIVETRAIN_HOSTS"].split(',').map(str::to_string).collect();
    for (index, process) in processes.iter().enumerate() {
        assert_eq!(process.environment["DRIVETRAIN_PROCESS"], index.to_string());
        assert_eq!(hosts[index].split(':').next(), Some(names[index].as_str()), "a host is a service");
        assert_eq!(services[names[index]]["restart"], "always");
    }
    assert_eq!(hosts.len(), processes.len());
    let kafka = &services["kafka"];
    let advertised = kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"].as_str().unwrap();
    assert_eq!(advertised, format!("PLAINTEXT://{}", processes[0].environment["DRIVETRAIN_KAFKA__BROKERS"]));
    assert!(kafka["image"].as_str().unwrap().starts_with("apache/kafka:"));
    let local = localize(&mut processes, &hosts);
    for process in &mut processes {
        process.environment.insert("DRIVETRAIN_HOSTS".into(), local.clone());
    }
    Places::new(&[("fleet.toml", text("configs/fleet.toml"))]).run(&processes);
    let simulate = of_compose(&services["simulate"]);
    run(drivetrain().args(&simulate.arguments).arg("--help"), 0);
    assert!(simulate.arguments.contains(&processes[0].environment["DRIVETRAIN_KAFKA__BROKERS"]));
}

fn of_compose(service: &Value) -> Process {
    let environment = service["environment"].as_object().into_iter().flatten();
    let environment = environment.map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_string()));
    Process { arguments: strings(&service["command"]), environment: environment.collect() }
}

#[test]
fn the_stateful_set_runs() {
    let Some(parsed) = parsed() else { return };
    let objects = parsed["kubernetes"].as_array().unwrap();
    let kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).expect(kind);
    let (config, service, set) = (&kind("ConfigMap")["data"], kind("Service"), kind("StatefulSet"));
    let spec = &set["spec"];
    let pod = &spec["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(
        (&spec["podManagementPolicy"], &spec["updateStrategy"]["type"]),
        (&"Parallel".into(), &"OnDelete".into())
    );
    assert_eq!(
        (&service["spec"]["clusterIP"], &service["spec"]["publishNotReadyAddresses"]),
        (&"None".into(), &true.into())
    );
    assert_eq!(spec["serviceName"], service["metadata"]["name"]);
    for labels in [
        &service["spec"]["selector"],
        &spec["selector"]["matchLabels"],
        &kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ] {
        assert_eq!(labels, &spec["template"]["metadata"]["labels"]);
    }
    let user = pod["securityContext"]["runAsUser"].to_string();
    assert!(of(&dockerfile(), "USER").contains(&format!("{user}:{user}").as_str()), "the image's user");
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);

    // Where things are mounted is where the arguments look for them.
    let mounts = container["volumeMounts"].as_array().unwrap();
    let mounted = |name: &str| mounts.iter().find(|m| m["name"] == name).expect(name)["mountPath"].as_str().unwrap();
    assert_eq!((mounted("config"), mounted("data")), ("/etc/drivetrain", "/var/lib/drivetrain"));
    assert_eq!(
        (&pod["volumes"][0]["name"], &spec["volumeClaimTemplates"][0]["metadata"]["name"]),
        (&"config".into(), &"data".into())
    );

    let replicas = spec["replicas"].as_u64().unwrap() as usize;
    let mut processes: Vec<Process> = (0..replicas).map(|pod| of_pod(container, pod)).collect();
    assert_eq!(processes[0].environment["DRIVETRAIN_PROCESSES"], replicas.to_string(), "replicas and processes");
    let hosts: Vec<String> = config["hosts"].as_str().unwrap().lines().map(str::to_string).collect();
    let (name, domain) = (set["metadata"]["name"].as_str().unwrap(), spec["serviceName"].as_str().unwrap());
    for (index, host) in hosts.iter().enumerate() {
        let port = &container["ports"][0]["containerPort"];
        assert_eq!(*host, format!("{name}-{index}.{domain}:{port}"));
    }
    assert!(hosts.len() >= replicas);
    // The file has more lines than there are processes; so has the one here.
    let local = localize(&mut processes, &hosts).replace(',', "\n") + "\nnobody:2101\n";
    let places = Places::new(&[("job.toml", config["job.toml"].as_str().unwrap().into()), ("hosts", local)]);
    places.run(&processes);

    let probe = strings(&container["startupProbe"]["exec"]["command"]);
    assert_eq!(probe[0], "/usr/local/bin/drivetrain");
    run(&mut places.command(&processes[0], &probe[1..]), 0);
}

fn of_pod(container: &Value, pod: usize) -> Process {
    let value = |variable: &Value| match variable["value"].as_str() {
        Some(value) => value.to_string(),
        None => {
            let field = &variable["valueFrom"]["fieldRef"]["fieldPath"];
            assert_eq!(field, "metadata.labels['apps.kubernetes.io/pod-index']");
            pod.to_string()
        }
    };
    let variables = container["env"].as_array().unwrap().iter();
    let environment = variables.map(|v| (v["name"].as_str().unwrap().to_string(), value(v))).collect();
    Process { arguments: strings(&container["args"]), environment }
}

/// Nothing is said of a file that is not there, and none is left out.
#[test]
fn the_guide_names_every_file() {
    let guide = text("deploy/README.md");
    for entry in fs::read_dir(repository("deploy")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || guide.contains(&format!("({name})")), "{name}");
    }
    for link in guide.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let local = !link.starts_with("http") && !link.starts_with('#');
        assert!(!local || Path::new(&repository("deploy")).join(link).exists(), "{link}");
    }
}
