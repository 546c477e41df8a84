// SPDX-License-Identifier: Apache-2.0

package shipping

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit/sink/kafka"
)

// A broker is also its own controller (KRaft). What it stores is on a small file system of its own. To the shipper it is at the addresses of the
// proxies, to the test at its own.
const brokerProperties = `
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{CONTROLLER}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
listeners=PLAIN://{PLAIN},CONTROLLER://{CONTROLLER},MTLS://{MTLS},SASL://{SASL}
advertised.listeners=PLAIN://{PLAIN},MTLS://{MTLS PROXY},SASL://{SASL PROXY}
listener.security.protocol.map=PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,MTLS:SSL,SASL:SASL_SSL
ssl.keystore.type=PEM
ssl.keystore.location={KEYS}
ssl.truststore.type=PEM
ssl.truststore.location={CA}
listener.name.mtls.ssl.client.auth=required
sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_metsuke="{PASSWORD}";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
auto.create.topics.enable=false
log.dirs={DATA}
log.index.size.max.bytes=65536
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
`

// password is that of all users, until a test changes it.
const password = "hunter2-hunter2"

var java = []string{
	"-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp",
}

// broker is a Kafka broker.
type broker struct {
	dir, data   string
	topic       string // that count and arrivals are of
	plain       string // address for the test itself, as an administrator
	mtls, sasl  *proxy
	authority   *authority
	properties  string
	process     *process
	admin       *kadm.Client
	adminClient *kgo.Client
}

func startBroker(t *testing.T) *broker {
	t.Helper()
	b := &broker{dir: t.TempDir(), plain: address(t), authority: newAuthority(t)}
	b.data = filepath.Join(b.dir, "data")
	if err := os.Mkdir(b.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", b.data, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(b.data, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	mtls, sasl := address(t), address(t)
	b.mtls, b.sasl = newProxy(t, mtls), newProxy(t, sasl)
	b.properties = write(t, b.dir, "server.properties", fill(brokerProperties,
		"PLAIN", b.plain, "CONTROLLER", address(t), "MTLS", mtls, "SASL", sasl, "MTLS PROXY", b.mtls.address(), "SASL PROXY", b.sasl.address(),
		"KEYS", b.authority.file("server-both"), "CA", b.authority.file("ca"), "PASSWORD", password, "DATA", b.data))
	users := []string{}
	for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
		users = append(users, "--add-scram", mechanism+"=[name=metsuke,password="+password+"]")
	}
	format := append([]string{"kafka.tools.StorageTool", "format", "--cluster-id", "bWV0c3VrZS1zaGlwcGluZw", "--config", b.properties}, users...)
	storage := start(t, b.dir, "java", b.command(format...)...)
	<-storage.done
	if !storage.cmd.ProcessState.Success() {
		t.Fatalf("format the storage: %s", storage.tail())
	}
	var err error
	if b.adminClient, err = kgo.NewClient(kgo.SeedBrokers(b.plain)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.adminClient.Close)
	b.admin = kadm.NewClient(b.adminClient)
	b.start(t)
	return b
}

func (b *broker) command(args ...string) []string {
	return append(append(java[:len(java):len(java)], filepath.Join(tool("kafka"), "*")), args...)
}

// start starts the broker, on what it stored before, and waits until it answers.
func (b *broker) start(t *testing.T) {
	t.Helper()
	b.process = start(t, b.dir, "java", b.command("kafka.Kafka", b.properties)...)
	until(t, "the broker answers", func() bool {
		if b.process.ended() {
			t.Fatalf("the broker has ended (%v)", b.process.cmd.ProcessState)
		}
		if c, err := net.Dial("tcp", b.plain); err != nil {
			return false
		} else {
			_ = c.Close()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		brokers, err := b.admin.ListBrokers(ctx)
		return err == nil && len(brokers) == 1
	})
}

// useTopic makes a topic that is shipped to from now on.
func (b *broker) useTopic(t *testing.T, name string) {
	t.Helper()
	b.createTopic(t, name, nil)
	b.topic = name
}

func (b *broker) createTopic(t *testing.T, name string, settings map[string]*string) {
	t.Helper()
	until(t, "the topic "+name+" is made", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := b.admin.CreateTopic(ctx, pods, 1, settings, name)
		return err == nil
	})
}

// count is how many messages the topic has.
func (b *broker) count(t *testing.T) int64 {
	t.Helper()
	var n int64
	ends, err := b.admin.ListEndOffsets(t.Context(), b.topic)
	if err != nil {
		return 0 // the broker does not answer just now
	}
	ends.Each(func(o kadm.ListedOffset) { n += max(o.Offset, 0) })
	return n
}

// arrivals reads the whole topic.
func (b *broker) arrivals(t *testing.T) (all []arrival) {
	t.Helper()
	n := b.count(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(b.plain), kgo.ConsumeTopics(b.topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for int64(len(all)) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			a := arrival{line: r.Value}
			for _, h := range r.Headers {
				switch h.Key {
				case kafka.HeaderID:
					a.id = string(h.Value)
				case kafka.HeaderKind:
					a.kind = string(h.Value)
				}
			}
			all = append(all, a)
		})
	}
	return all
}

// fillDisk leaves no room on what the broker stores on, until the file is removed whose path it returns.
func (b *broker) fillDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(b.data, "ballast")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; { // smaller and smaller pieces
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return path
}
