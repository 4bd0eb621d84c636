package config

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// What a listener demands of clients.
const (
	ClientAuthNone     = "none"
	ClientAuthOptional = "optional" // a certificate that is given must be good
	ClientAuthRequired = "required"
)

// ListenerTLS is TLS towards clients; off without CertFile. The files are PEM.
type ListenerTLS struct {
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	CAFile     string `yaml:"ca_file"`
	ClientAuth string `yaml:"client_auth"` // "": required where there is a CAFile
}

// UpstreamTLS is TLS towards the nodes, or the sentinels.
type UpstreamTLS struct {
	Enabled    bool   `yaml:"enabled"`
	CAFile     string `yaml:"ca_file"` // "": the system's authorities
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"` // "": the host by which each is reached
}

func (v *validator) listenerTLS(field string, t ListenerTLS) {
	v.check((t.CertFile == "") == (t.KeyFile == ""), field+"key_file", t.KeyFile, "cert_file and key_file go together")
	v.oneOf(field+"client_auth", t.ClientAuth, []string{ClientAuthNone, ClientAuthOptional, ClientAuthRequired}, true)
	if t.ClientAuth == ClientAuthOptional || t.ClientAuth == ClientAuthRequired {
		v.check(t.CAFile != "", field+"ca_file", "", "is missing; client_auth needs the authority of the clients' certificates")
	}
	v.check(t.ClientAuth != ClientAuthNone || t.CAFile == "", field+"client_auth", t.ClientAuth, "contradicts ca_file; leave one of the two out")
	v.check(t.CertFile != "" || t.CAFile == "" && t.ClientAuth == "", field+"cert_file", "", "is missing; TLS needs cert_file and key_file")
}

func (v *validator) upstreamTLS(field string, t UpstreamTLS) {
	v.check((t.CertFile == "") == (t.KeyFile == ""), field+".key_file", t.KeyFile, "cert_file and key_file go together")
	v.check(t.Enabled || t == UpstreamTLS{}, field+".enabled", "", "must be true where other keys of "+field+" are set")
}

// load reads the files; nil without TLS. field begins the errors.
func (t ListenerTLS) load(field string) (*tls.Config, error) {
	if t.CertFile == "" {
		return nil, nil
	}
	cert, err := loadPair(field, t.CertFile, t.KeyFile)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	if t.CAFile == "" {
		return cfg, nil
	}
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	if t.ClientAuth == ClientAuthOptional {
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
	}
	cfg.ClientCAs, err = loadPool(field, t.CAFile)
	return cfg, err
}

// perConnection is load with files that are read for each connection anew, so
// that renewed ones hold without anybody's asking. While they cannot be read, those
// of the last time stay in use, and the log says so.
func (t ListenerTLS) perConnection(field string, log *zap.Logger) (*tls.Config, error) {
	first, err := t.load(field)
	if first == nil || err != nil {
		return nil, err
	}
	if log == nil {
		log = zap.NewNop()
	}
	var last atomic.Pointer[tls.Config]
	last.Store(first)
	cfg := first.Clone()
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		next, err := t.load(field)
		if err != nil {
			log.Warn("certificates cannot be read; those that were read before stay in use", zap.Error(err))
			return last.Load(), nil
		}
		last.Store(next)
		return next, nil
	}
	return cfg, nil
}

// NodeTLS returns how to connect to the nodes, nil for plain TCP. It reads the
// certificates; its errors name key and file.
func (c *Config) NodeTLS() (*tls.Config, error) { return c.Upstream.TLS.load(upstreamTLSKey) }

// SentinelTLS is NodeTLS for the sentinels.
func (c *Config) SentinelTLS() (*tls.Config, error) { return c.Sentinel.TLS.load("sentinel.tls") }

const upstreamTLSKey = "upstream.tls"

// load reads the files; nil without TLS. field begins the errors.
func (t UpstreamTLS) load(field string) (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	var err error
	if t.CertFile != "" {
		cert, err := loadPair(field, t.CertFile, t.KeyFile)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	if t.CAFile != "" {
		cfg.RootCAs, err = loadPool(field, t.CAFile)
	}
	return cfg, err
}

// Dial connects with TLS, by the files as they are now.
func (t UpstreamTLS) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	cfg, err := t.load(upstreamTLSKey)
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{NetDialer: &net.Dialer{KeepAlive: time.Minute}, Config: cfg}
	return d.DialContext(ctx, network, addr)
}

func loadPair(field, certFile, keyFile string) (tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		err = fmt.Errorf("configuration: %s: load certificate %s with key %s: %w", field, certFile, keyFile, err)
	}
	return cert, err
}

func loadPool(field, file string) (*x509.CertPool, error) {
	b, err := os.ReadFile(file)
	if err == nil {
		pool := x509.NewCertPool()
		if pool.AppendCertsFromPEM(b) {
			return pool, nil
		}
		err = errors.New("no certificate in PEM form is in it")
	}
	return nil, fmt.Errorf("configuration: %s: load ca_file %s: %w", field, file, err)
}
