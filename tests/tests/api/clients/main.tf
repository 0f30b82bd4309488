terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "3.39.0"
    }
  }
}
variable "endpoint" {}
variable "port" {}

provider "aws" {
  region = "us-east-1"
  endpoints {
    ec2 = var.endpoint
    sts = var.endpoint
  }
}
data "aws_vpc" "default" { default = true }
resource "aws_security_group" "web" {
  name = "tf-web"
  description = "web by terraform"
  ingress {
    from_port = var.port
    to_port = var.port
    protocol = "tcp"
    cidr_blocks = ["10.0.0.0/8"]
    ipv6_cidr_blocks = ["2001:db8::/32"]
    description = "http"
  }
  ingress {
    from_port = 0
    to_port = 0
    protocol = "-1"
    self = true
  }
  egress {
    from_port = 0
    to_port = 0
    protocol = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
  tags = { Name = "web", Port = var.port }
}
resource "aws_vpc" "v" { cidr_block = "10.9.0.0/16" }
resource "aws_subnet" "s" {
  vpc_id = aws_vpc.v.id
  cidr_block = "10.9.1.0/24"
}
resource "aws_security_group" "db" {
  name = "tf-db"
  vpc_id = aws_vpc.v.id
}
resource "aws_security_group" "app" {
  name = "tf-app"
  vpc_id = aws_vpc.v.id
}
resource "aws_ec2_managed_prefix_list" "office" {
  name = "office"
  address_family = "IPv4"
  max_entries = 5
  entry {
    cidr = "198.51.100.0/24"
    description = "one"
  }
  entry { cidr = "203.0.113.${var.port}/32" }
}
resource "aws_security_group_rule" "db" {
  type = "ingress"
  security_group_id = aws_security_group.db.id
  from_port = 5432
  to_port = 5432
  protocol = "tcp"
  source_security_group_id = aws_security_group.app.id
}
resource "aws_security_group_rule" "list" {
  type = "egress"
  security_group_id = aws_security_group.app.id
  from_port = 443
  to_port = 443
  protocol = "tcp"
  prefix_list_ids = [aws_ec2_managed_prefix_list.office.id]
}
resource "aws_security_group_rule" "ping" {
  type = "ingress"
  security_group_id = aws_security_group.app.id
  from_port = 8
  to_port = 0
  protocol = "icmp"
  cidr_blocks = ["10.9.0.0/16"]
}
resource "aws_default_security_group" "d" { vpc_id = aws_vpc.v.id }
