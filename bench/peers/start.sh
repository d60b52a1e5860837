#!/bin/sh
# Postfix (25, 587, 465) and Dovecot (110, 995) with one system account, demo, and
# Maildirs: TLS with a P-256 key and AUTH through Dovecot, as Debian's manuals describe.
set -eu
PASSWORD=${PASSWORD:?}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
    -subj /CN=peer.example.test -keyout /etc/ssl/peer.key -out /etc/ssl/peer.crt 2>/dev/null
useradd -m -s /bin/sh demo
printf 'demo:%s\n' "$PASSWORD" | chpasswd

postconf -e myhostname=peer.example.test mydestination=example.test \
    smtpd_tls_cert_file=/etc/ssl/peer.crt smtpd_tls_key_file=/etc/ssl/peer.key \
    smtpd_tls_security_level=may smtpd_sasl_type=dovecot smtpd_sasl_path=private/auth \
    home_mailbox=Maildir/ mailbox_size_limit=0 inet_interfaces=all maillog_file=/dev/stdout \
    smtpd_client_connection_rate_limit=0 smtpd_client_connection_count_limit=0
for name in submission submissions; do
    postconf -M "$name/inet=$name inet n - n - - smtpd"
    postconf -P "$name/inet/smtpd_sasl_auth_enable=yes" \
        "$name/inet/smtpd_recipient_restrictions=permit_sasl_authenticated,reject"
done
postconf -P submission/inet/smtpd_tls_security_level=encrypt \
    submissions/inet/smtpd_tls_wrappermode=yes
postconf -F '*/*/chroot=n'

version=$(dovecot --version | cut -c1-3)
{
    if [ "$version" = 2.4 ]; then
        echo 'dovecot_config_version = 2.4.0'
        echo 'dovecot_storage_version = 2.4.0'
        echo 'mail_driver = maildir'
        echo 'mail_path = ~/Maildir'
        echo 'ssl_server_cert_file = /etc/ssl/peer.crt'
        echo 'ssl_server_key_file = /etc/ssl/peer.key'
        printf 'passdb pam {\n}\nuserdb passwd {\n}\n'
    else
        echo 'mail_location = maildir:~/Maildir'
        echo 'ssl_cert = </etc/ssl/peer.crt'
        echo 'ssl_key = </etc/ssl/peer.key'
        printf 'passdb {\n driver = pam\n}\nuserdb {\n driver = passwd\n}\n'
    fi
    cat <<'END'
protocols = pop3
ssl = required
auth_mechanisms = plain login
log_path = /dev/stderr
service auth {
  unix_listener /var/spool/postfix/private/auth {
    mode = 0660
    user = postfix
    group = postfix
  }
}
END
} >/etc/dovecot/dovecot.conf
install -d -o postfix -m 0700 /var/spool/postfix/private
dovecot
exec postfix start-fg
