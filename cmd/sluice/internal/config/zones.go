package config

import (
	"fmt"
	"maps"
	"slices"
)

// zoneOf returns the zone of each node that has one, by address.
func (c *Config) zoneOf() map[string]string {
	of := make(map[string]string)
	for zone, nodes := range c.Zones {
		for _, n := range nodes {
			of[n] = zone
		}
	}
	return of
}

// zones checks that every node is in one zone.
func (v *validator) zones(c *Config) {
	seen := make(map[string]string)
	for _, zone := range slices.Sorted(maps.Keys(c.Zones)) {
		field := "zones." + zone
		v.check(zone != "", "zones", zone, "must have a name for each zone")
		for i, n := range c.Zones[zone] {
			at := fmt.Sprintf("%s[%d]", field, i)
			v.node(at, n)
			other, twice := seen[n]
			v.check(!twice, at, n, "is in zone "+other+" already")
			seen[n] = zone
		}
	}
	v.check(c.Zone == "" || len(c.Zones) > 0, "zone", c.Zone, "means nothing without zones, which say where the nodes are")
}
