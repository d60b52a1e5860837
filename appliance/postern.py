"""The ``postern`` command: start, look at and administer the appliance.

Each subcommand is a module of its own, loaded only when it is asked for: ``health``
runs every few seconds and must not pay for templates and cryptography.
"""

import os
import sys

USAGE = """\
usage: postern COMMAND [ARGUMENTS]

  start                        prepare everything and run the services (the container's command)
  health [--service NAME]      ask every service whether it works; exit 0 or 1
  config show                  every setting, and where its value came from
  config reference             every setting, as a table for the documentation
  render DIRECTORY             write service directories and control files to DIRECTORY
  user add|passwd|del|list|disable|enable|state|quota|file
  alias add|del|list
  domain add|del|list
  dkim list|new|import|use|del keys that submitted mail is signed with
  srs rotate                   sign the senders of forwarded mail with a new secret
  backup                       everything on the volume, as a tar stream; services may run
  restore [--replace]          a volume from such a stream
  dns [DOMAIN]                 the DNS records that a domain should have
  rules check FILE             say what is wrong with a fixsmtpio rule file, and where
  rules try FILE [DIALOGUE]    show what each rule does to a dialogue
  log [[-t] -c FILE] SERVICE   turn log lines into JSON, count them (the loggers do)
  metrics ADDRESS PORT         serve metrics to Prometheus (the service metrics does)
  metrics reference            every metric, as a table for the documentation
  version                      print the version

`postern COMMAND --help` tells more about render, config, user, alias, domain,
dkim, backup and restore.
"""

EXIT_USAGE = 100

# command -> the module whose main(argv, env) does it
MODULES = {
    "start": "appliance.start",
    "health": "appliance.health",
    "config": "appliance.config",
    "render": "appliance.config",
    "user": "appliance.admin",
    "alias": "appliance.admin",
    "domain": "appliance.admin",
    "dkim": "appliance.dkim_admin",
    "srs": "appliance.srs",
    "backup": "appliance.backup",
    "restore": "appliance.restore",
    "dns": "appliance.dns_records",
    "rules": "appliance.rules",
    "log": "appliance.jsonlog",
    "metrics": "appliance.metrics",
    "version": "appliance.version",
}


# They explain themselves.
PARSERS = {
    "appliance.admin",
    "appliance.backup",
    "appliance.config",
    "appliance.dkim_admin",
    "appliance.restore",
}


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``postern COMMAND ...``.

    Returns:
        The command's exit status; 100 when there is no such command.
    """
    if len(argv) > 1 and argv[1] in {"-h", "--help", "help"}:
        sys.stdout.write(USAGE)
        return 0
    if len(argv) < 2 or argv[1] not in MODULES:
        sys.stderr.write(USAGE)
        return EXIT_USAGE
    name = MODULES[argv[1]]
    if name not in PARSERS and {"-h", "--help"} & set(argv[2:3]):
        sys.stdout.write(USAGE)
        return 0
    __import__(name)
    module = sys.modules[name]
    try:
        return int(module.main(argv[1:], env))
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 130
    except BrokenPipeError:
        return 1


def console() -> int:
    """Run postern with this process's arguments, for an installed console script."""
    return main(sys.argv, dict(os.environ))
