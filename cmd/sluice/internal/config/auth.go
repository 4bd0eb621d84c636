package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/sluice-io/sluice/proxy"
)

// User is a user of auth: static.
type User struct {
	Name             string   `yaml:"name"`
	Password         Secret   `yaml:"password"`
	PasswordSHA256   []Secret `yaml:"password_sha256"` // 64 hexadecimal digits each
	UpstreamUser     string   `yaml:"upstream_user"`
	UpstreamPassword Secret   `yaml:"upstream_password"` // "": user and password of [Upstream]
}

func (v *validator) auth(c *Config) {
	v.oneOf("auth", string(c.Auth), names(proxy.AuthModes()), false)
	static := c.Auth == proxy.AuthStatic
	for i, l := range c.Listeners {
		v.oneOf(fmt.Sprintf("listeners[%d].auth", i), string(l.Auth), names(proxy.AuthModes()), true)
		static = static || l.Auth == proxy.AuthStatic
	}
	v.check(!static || len(c.Users) > 0, "users", "", "is empty; auth: static needs at least one user")
	seen := map[string]bool{}
	for i, u := range c.Users {
		field := fmt.Sprintf("users[%d].", i)
		v.check(u.Name != "", field+"name", "", "is missing")
		v.check(!seen[u.Name], field+"name", u.Name, "is listed twice")
		seen[u.Name] = true
		v.check(u.Password != "" || len(u.PasswordSHA256) > 0, field+"password", "", "is missing; give password or password_sha256")
		for j, h := range u.PasswordSHA256 {
			_, ok := sha256Of(h)
			v.check(ok, fmt.Sprintf("%spassword_sha256[%d]", field, j), "", "must be 64 hexadecimal digits")
		}
		v.check(u.UpstreamUser == "" || u.UpstreamPassword != "", field+"upstream_password", "", "is missing; upstream_user needs it")
	}
}

func sha256Of(text Secret) (h [sha256.Size]byte, ok bool) {
	n, err := hex.Decode(h[:], []byte(text)[:min(len(text), 2*len(h))])
	return h, err == nil && n == len(h) && len(text) == 2*len(h)
}

func (u *User) options() proxy.User {
	o := proxy.User{Name: u.Name, UpstreamUser: u.UpstreamUser, UpstreamPassword: string(u.UpstreamPassword)}
	if u.Password != "" {
		o.Hashes = append(o.Hashes, sha256.Sum256([]byte(u.Password)))
	}
	for _, text := range u.PasswordSHA256 {
		if h, ok := sha256Of(text); ok {
			o.Hashes = append(o.Hashes, h)
		}
	}
	return o
}
