// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"context"
	"net"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	collogpb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"

	"metsuke.dev/metsuke/audit/shipper/config"
	"metsuke.dev/metsuke/audit/sink/credentials"
)

const grpcPort = "4317"

// overGRPC makes the exporter, on a connection of our own.
func (s *Sink) overGRPC(ctx context.Context, c *config.Sink, version string) error {
	o := c.OTLP
	secured := insecure.NewCredentials()
	if o.Endpoint.Scheme == "https" {
		secured = &handshake{grpccredentials.NewTLS(nil), o.TLS, o.Endpoint.Hostname()}
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(secured), grpc.WithUnaryInterceptor(s.answers.intercept),
		grpc.WithUserAgent("metsuke/" + version), grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{ // the shipper waits as well
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 10 * time.Second}, MinConnectTimeout: 10 * time.Second,
		}),
	}
	if o.Compression == config.CompressionGzip {
		options = append(options, grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	}
	port := o.Endpoint.Port()
	if port == "" {
		port = grpcPort
	}
	conn, err := grpc.NewClient(net.JoinHostPort(o.Endpoint.Hostname(), port), options...)
	if err != nil {
		return err
	}
	s.end = conn.Close
	service := collogpb.NewLogsServiceClient(conn)
	s.empty = func(ctx context.Context) error {
		_, err := service.Export(ctx, &collogpb.ExportLogsServiceRequest{})
		return err
	}
	s.exporter, err = otlploggrpc.New(ctx, otlploggrpc.WithGRPCConn(conn), otlploggrpc.WithTimeout(c.Timeout),
		otlploggrpc.WithHeaders(nil), otlploggrpc.WithRetry(otlploggrpc.RetryConfig{}))
	return err
}

// intercept sends the headers along, and notes what the far side answers.
func (a *answers) intercept(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
	headers, err := a.headers()
	if err != nil {
		return err
	}
	for name, value := range headers {
		ctx = metadata.AppendToOutgoingContext(ctx, name, value)
	}
	if err := invoke(ctx, method, req, reply, conn, o...); err != nil {
		return err
	}
	partial := reply.(*collogpb.ExportLogsServiceResponse).GetPartialSuccess()
	a.accept(partial.GetRejectedLogRecords(), partial.GetErrorMessage())
	return nil
}

// handshake secures each connection with the files as they are then.
type handshake struct {
	grpccredentials.TransportCredentials // says what it is
	tls                                  *config.TLS
	host                                 string
}

// ClientHandshake implements grpccredentials.TransportCredentials.
func (h *handshake) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, grpccredentials.AuthInfo, error) {
	c, err := credentials.TLS(h.tls, h.host)
	if err != nil {
		return nil, nil, err
	}
	// The name that is checked is this argument, whatever the configuration has.
	return grpccredentials.NewTLS(c).ClientHandshake(ctx, c.ServerName, raw)
}

// Clone implements grpccredentials.TransportCredentials. It does not change.
func (h *handshake) Clone() grpccredentials.TransportCredentials { return h }
