"""A care year played through the real programs: sandbox CMS, facade, worker, a PCP's receiver and a mailbox."""
